"""What the plug-in runs on: the one place that says it. setup.py, scripts/install.sh, the doctor and the check of
fairseq read it, and tests hold the docs and the hosted workflow to it.

python entropy_mask_plugin/system/supported.py prints the fairseq that this Python takes, and whether it comes as a
`wheel` or is compiled from `source`; where this Python is not supported, one line and exit status 1. It runs before
anything is installed, on a Python that may be too old: the standard library of 3.6 has to be enough.
"""

import importlib
import platform
import sys
from typing import Optional, Tuple

Version = Tuple[int, int]
PYTHON = ((3, 11), (3, 12), (3, 13))  # each is tested
OLDEST = {
    "torch": (2, 6),  # the first whose torch.load refuses pickles that run code unless told otherwise
    "numpy": (1, 26),
}
# Distributions of the fairseq whose internals `fairseq_fixes` patches: fairseq's last main, repaired for Python 3.11.
# All that the plug-in uses is the same in both; the second has a wheel where the first has none.
FAIRSEQ = {"fairseq-fixed": "0.12.3.1", "ve-fairseq": "0.12.3"}
WHEELS = {((3, 11), "x86_64"): "ve-fairseq", ((3, 12), "x86_64"): "fairseq-fixed"}  # of Python, machine


def python_range() -> str:
    return "{}.{} to {}.{}".format(*PYTHON[0], *PYTHON[-1])


def python_problem(version: Version) -> Optional[str]:
    """One line on a Python that is not supported."""
    if version in PYTHON:
        return None
    reason = "hydra.main, with which fairseq-hydra-train starts, fails there" if version > PYTHON[-1] else (
        "it is older than any on which this was tested")  # hydra.main: as of 3.14, in hydra 1.3.2 to 1.3.8
    return "python {}.{} is not supported, expected {}: {}".format(*version, python_range(), reason)


def fairseq_for(version: Version, machine: str) -> str:
    """The distribution that a Python takes on a machine, as `platform.machine()` names it."""
    return WHEELS.get((version, machine), "fairseq-fixed")


def fairseq_requirements() -> Tuple[str, ...]:
    """`fairseq_for` as requirements of a package, with their markers."""
    ((version, machine),) = [place for place, name in WHEELS.items() if name == "ve-fairseq"]
    python = "{}.{}".format(*version)
    return (
        f"ve-fairseq=={FAIRSEQ['ve-fairseq']}; python_version == '{python}' and platform_machine == '{machine}'",
        f"fairseq-fixed=={FAIRSEQ['fairseq-fixed']}; python_version != '{python}' or platform_machine != '{machine}'",
    )


def installed_fairseq() -> Tuple[str, Optional[str]]:
    """(Distribution, version) of the installed fairseq; ("fairseq-fixed", None) where it is none of FAIRSEQ."""
    metadata = importlib.import_module("importlib.metadata")  # new in 3.8
    for name in FAIRSEQ:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "fairseq-fixed", None


if __name__ == "__main__":
    here = sys.version_info[:2], platform.machine()
    problem = python_problem(here[0])
    if problem:
        sys.exit(f"error: {problem}")
    print(fairseq_for(*here), "wheel" if here in WHEELS else "source")
