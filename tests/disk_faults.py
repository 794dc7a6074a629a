"""Commands on a disk that fails: it is full, read-only or broken, or a file vanishes, from the n-th call of a kind on.

    LD_PRELOAD=faults.so python tests/disk_faults.py --inputs DIR [--points 3] [--only COMMAND …]

faults.so is builders/faults.c. After each fault the command must have failed in one line that names a file, with
nothing half-written under a final name and no temporary file left; and the same command, run again on a good disk,
must end with the files of an undisturbed run.
"""

import argparse
import errno
import os
import re
import shutil
import struct
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork must not miss threads that exist in its parent
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from builders.attempts import (
    COMMANDS,
    differences,
    fork,
    get_ready,
    is_replaced,
    perform,
    results,
    unfinished_files,
    words_of,
)

KINDS = ("write", "fsync", "rename", "create", "open", "read")  # as in faults.c
PLAN = struct.Struct("@5l6l4096s4096s")


class Fault(NamedTuple):
    """kind: of the calls that fail. lasts: all calls from the n-th on fail, not it alone. inputs: in the files that the
    command reads, not in those that it writes."""

    kind: str
    code: int
    lasts: bool = False
    inputs: bool = False


FAULTS = {
    "full disk": Fault("write", errno.ENOSPC, lasts=True),
    "error in write": Fault("write", errno.EIO),
    "no room in fsync": Fault("fsync", errno.ENOSPC),
    "error in rename": Fault("rename", errno.EIO),
    "read-only": Fault("create", errno.EROFS, lasts=True),
    "vanished file": Fault("open", errno.ENOENT, inputs=True),
    "error in read": Fault("read", errno.EIO, inputs=True),
}
BRIEF = {  # what each push meets, at one call; each night everything meets everything
    "prepare-corpus": ["full disk", "error in read"],
    "import-hf-bert": list(FAULTS),
    "export-hf-bert": ["full disk", "error in write"],
    "build-entropy-cache": ["full disk", "no room in fsync", "read-only", "vanished file", "error in read"],
    "fairseq-train, cache and masks": ["full disk", "error in write", "no room in fsync", "read-only", "vanished file"],
    "fairseq-train, own entropies": ["full disk"],
    "glue": ["full disk"],
}


class Outcome(NamedTuple):
    status: int
    output: str
    counts: Dict[str, int]
    fired: int
    name: str  # of the file that failed first


def attempt(command: List[str], inputs: Path, own: Path, fault: Fault, number: int) -> Outcome:
    """Run a command in `own`, whose call `number` fails; 0 = none does."""
    plan, log = own.with_suffix(".plan"), own.with_suffix(".log")
    watched = inputs if fault.inputs else own
    kind, last = KINDS.index(fault.kind) if number else -1, 2**62 if fault.lasts else number
    plan.write_bytes(PLAN.pack(kind, fault.code, number, last, 0, *[0] * 6, str(watched).encode(), b""))
    log.write_text("")
    own.mkdir(exist_ok=True)
    words = words_of(command, inputs, own)
    status = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: perform(words), log, FAULTS=str(plan)), 0)[1])
    *_, fired, w, f, r, c, o, e, _, name = PLAN.unpack(plan.read_bytes())
    return Outcome(status, log.read_text(errors="replace"), dict(zip(KINDS, (w, f, r, c, o, e))), fired,
                   name.rstrip(b"\0").decode())


def error_lines(outcome: Outcome) -> List[str]:
    """Of the output, without progress bars, the log and sums: one, or one for each row or fine-tuning that failed."""
    lines = {line for line in re.split(r"[\r\n]", outcome.output) if line.startswith(("error:", "failed:"))}
    return sorted(line for line in lines if not line.endswith("failed, see above"))


def problems(outcome: Outcome, own: Path, inputs: Path, calm: Dict[str, str]) -> List[str]:
    """What is wrong after a fault."""
    lines, found = error_lines(outcome), results(own)
    half = [name for name in found if calm.get(name, found[name]) != found[name] and not is_replaced(name)]
    checks = {
        f"exit status {outcome.status}": outcome.status == 1,
        "a traceback": "Traceback" not in outcome.output,
        f"lines: {lines}": len(lines) == 1 or lines and all(line.startswith("failed:") for line in lines),
        "a line that names no file": all(str(own) in line or str(inputs) in line for line in lines),
        "nothing says to free space": all("free some space" in line for line in lines if "No space" in line),
        f"temporary files: {unfinished_files(own)}": not unfinished_files(own),
        f"half-written: {half}": not half,
    }
    return [problem for problem, fine in checks.items() if not fine]


def points(count: int, wanted: int) -> List[int]:
    """`wanted` of the numbers 1 … count, evenly spaced, the ends among them; one is the middle."""
    if wanted == 1:
        return [-(-count // 2)] if count else []
    return sorted({1 + (count - 1) * i // (wanted - 1) for i in range(wanted)}) if count else []


def check(name: str, inputs: Path, wanted: int, work: Path, faults: List[str]) -> List[str]:
    """Let a command meet faults, each at `wanted` calls. Returns a line for each, which begins with WRONG or fine."""
    own, calm, kept = work / "own", {}, []
    for reads in (False, True):
        calm[reads] = attempt(COMMANDS[name], inputs, own, Fault("", 0, inputs=reads), 0)
        assert calm[reads].status == 0, calm[reads].output[-3000:]
        kept.append(results(own))
        shutil.rmtree(own)
    assert kept[0] and not differences(*kept), differences(*kept)
    lines = []
    for kind in faults:
        count = calm[FAULTS[kind].inputs].counts[FAULTS[kind].kind]
        for number in points(count, wanted):
            lines.append(f"{meet(name, inputs, own, FAULTS[kind], number, kept[0])}; "
                         f"{name}, {kind}, call {number} of {count}")
            print(lines[-1], flush=True)
    return lines


def meet(name: str, inputs: Path, own: Path, fault: Fault, number: int, calm: Dict[str, str]) -> str:
    """Let a command meet a fault, then run it again without."""
    shutil.rmtree(own, ignore_errors=True)
    outcome = attempt(COMMANDS[name], inputs, own, fault, number)
    is_harmless = outcome.status == 0 and not differences(calm, results(own))  # a line of a log, a file read twice
    wrong = [] if is_harmless else problems(outcome, own, inputs, calm)
    again = attempt(COMMANDS[name], inputs, own, fault, 0)
    if again.status or differences(calm, results(own)) or unfinished_files(own):
        wrong += [f"run again, it ends with {again.status}, other files: {differences(calm, results(own))}, left: "
                  f"{unfinished_files(own)}", again.output[-1000:]]
    if wrong:
        return f"WRONG {outcome.name}: {wrong}\n{outcome.output[-3000:]}"
    return f"fine {outcome.name}: {'harmless' if is_harmless else error_lines(outcome)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=Path, required=True, help="folder of builders.attempts.make_inputs")
    parser.add_argument("--points", type=int, default=0, help="calls of each kind that fail, one in each run, for all "
                                                             "commands and faults (default: a brief choice, one call)")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, metavar="COMMAND")
    args = parser.parse_args()
    get_ready()
    wanted = {name: list(FAULTS) for name in COMMANDS} if args.points else BRIEF
    lines = []
    for name in args.only or wanted:
        work = args.inputs / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        lines += check(name, args.inputs, args.points or 1, work, wanted[name])
    print(f"{len(lines)} faults met")
    sys.exit(any(line.startswith("WRONG") for line in lines))


if __name__ == "__main__":
    main()
