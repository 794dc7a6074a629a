import gzip
import os
import re
import runpy
import tarfile
import time
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

root = Path(__file__).parent
package = root / "entropy_mask_plugin"  # read, not imported: that may need torch
init = (package / "__init__.py").read_text(encoding="utf-8")
supported = runpy.run_path(str(package / "system" / "supported.py"))
PYTHON, OLDEST = supported["PYTHON"], {name: "{}.{}".format(*version) for name, version in supported["OLDEST"].items()}


class ReproducibleSdist(sdist):
    """The same bytes from the same files, as wheels have them already: no owners, one time, SOURCE_DATE_EPOCH's."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def normalize(info):
            info.mtime, info.mode = epoch, 0o755 if info.mode & 0o100 else 0o644
            info.uid, info.gid, info.uname, info.gname = 0, 0, "", ""
            return info

        name = f"{base_name}.tar.gz"
        with gzip.GzipFile(name, "wb", mtime=epoch) as file, tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(base_dir, filter=normalize)
        return name


setup(
    cmdclass={"sdist": ReproducibleSdist},
    name="entropy-mask-plugin",
    version=re.search(r'^__version__ = "(.+)"$', init, re.MULTILINE).group(1),
    description="Entropy-aware masking for masked language modelling, as a fairseq plug-in",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    keywords="masked language modelling, pretraining, BERT, fairseq, masking policies, knowledge distillation",
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *("Programming Language :: Python :: {}.{}".format(*version) for version in PYTHON),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["entropy_mask_plugin", "entropy_mask_plugin.*"]),
    package_data={"entropy_mask_plugin": ["py.typed"], "entropy_mask_plugin.studies": ["page.html"],
                  "entropy_mask_plugin.atlas": ["page.html", "page.css", "page.js"]},
    entry_points={"console_scripts": ["entropy-mask = entropy_mask_plugin.cli:main"]},
    python_requires=f">={PYTHON[0][0]}.{PYTHON[0][1]},<{PYTHON[-1][0]}.{PYTHON[-1][1] + 1}",
    install_requires=[
        f"torch>={OLDEST['torch']}",
        *supported["fairseq_requirements"](),  # see scripts/install.sh for the order
        "hydra-core==1.3.2",  # as fairseq-fixed requires them; ve-fairseq would take any newer ones
        "omegaconf==2.3.0",
        f"numpy>={OLDEST['numpy']}",
        "sentencepiece>=0.2",
        "tokenizers>=0.20",  # WordPiece, and SentencePiece for transformers
        "safetensors>=0.4",
        "protobuf>=4.21",  # sentencepiece's own description of its models needs it
        "huggingface_hub>=0.24",
        "pyyaml>=6",
        "tqdm>=4.60",
    ],
    extras_require={  # entropy_mask_plugin/system/extras.py knows which modules they are
        "corpus": ["datasets>=3.0"],
        "glue": ["scipy>=1.15", "scikit-learn>=1.4"],
        "report": ["jinja2>=3.1", "matplotlib>=3.8", "tabulate>=0.9"],
        "tracking": ["tensorboard>=2.18", "wandb>=0.19"],
        "atlas": ["HanTa>=1.1"],  # a tagger that comes with its model
        "dev": ["pytest>=8", "build>=1.2", "pytest-xdist>=3.6", "hypothesis>=6.100", "transformers>=4.48",
                "minicons>=0.3.39",  # another implementation of pseudo-log-likelihoods, to compare with
                "ruff>=0.9", "pyright[nodejs]>=1.1.414"],  # with Node: otherwise its first run would download one
    },
)
