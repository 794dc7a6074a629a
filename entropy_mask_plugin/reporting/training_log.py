"""A finished or unfinished run, read from its folder: the checkpoint knows the flags, the log the numbers."""

import math
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy
from fairseq.data import Dictionary

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.structure import section_of
from ..config import recorded_lengths, source_schedule
from ..fairseq_fixes.checkpoint_files import LEARNED
from ..scoring import schedule
from ..system.errors import UsageError, naming, require
from ..training import plateau
from ..training.block_lengths import STATE, lengths_in

TRAIN_LOG, CHECKPOINT = "train.log", "checkpoint_last.pt"
# As fairseq-train prints it, and as hydra does.
LINE = re.compile(r"(?:\| |\[)(train|valid)(?: \||\]\[INFO\] -) epoch 0*([1-9]\d{0,8}) \|(.*)")
HOURS = re.compile(r"num_updates[= ](\d{1,18})\b.*hours[= ](\d+(?:\.\d*)?(?:e-\d+)?)")
NUMBER = re.compile(r"\b(\w+) (-?\d+(?:\.\d*)?(?:e-?\d+)?|nan)(?= \||$)")
NEEDED = {"valid": {"num_updates", "loss", "accuracy"}, "train": {"num_updates", "wpb"}}  # of a line that counts
COUNTED = {"num_updates", "wpb"}


@dataclass
class PretrainingRun:
    """One training run.

    name: its folder's.
    flags: {"task": …, "criterion": …, …}, as the checkpoint holds them.
    valid: validations in order, each a dict of what fairseq printed (loss in bits, accuracy, num_updates, …).
    train: the same for every epoch, at its end or, of the one under way, at its last validation. `epoch`, `num_updates`
        and `wpb` are always there, the others where fairseq has printed its line about the epoch.
    hours: [(update, training time in hours)], by fairseq's account, which goes on over interruptions.
    vocabulary: number of symbols.
    block_lengths: {epoch: positions of a block}, as the checkpoint holds them, where blocks grow.
    """

    name: str
    flags: Dict[str, Any]
    valid: List[Dict[str, float]]
    train: List[Dict[str, float]]
    hours: List[Tuple[int, float]]
    vocabulary: int
    block_lengths: Dict[int, int] = field(default_factory=dict)

    def hours_at(self, updates: Any) -> Any:
        """Training time in hours at an update, or at each of several; raises a UsageError where the log has none."""
        require("RUN", f"{self.name} without hours in its {TRAIN_LOG}", self.hours, "the output of fairseq-train")
        return numpy.interp(updates, *zip(*self.hours))

    def events(self) -> List[Tuple[float, str]]:
        """[(update, event that follows it)]: self-masking, distillation and longer blocks, where the run has reached
        them."""
        task, criterion = self.flags["task"], self.flags["criterion"]
        epochs = {}
        epochs["self-masking begins"] = source_schedule(task).switch
        if criterion["kd_weight"]:
            epochs["distillation begins"] = criterion["kd_start_epoch"]
        for length in self.lengths()[1:]:
            epochs[event_of_length(length)] = next(
                (log["epoch"] for log in self.train if self.length_of(log["epoch"]) >= length), None)
        ends = {0: 0, **{log["epoch"]: log["num_updates"] for log in self.train}}
        reached = [(event, epoch) for event, epoch in epochs.items() if epoch and epoch <= self.train[-1]["epoch"]]
        return [(ends[epoch - 1], event) for event, epoch in reached if epoch - 1 in ends]

    def lengths(self) -> Tuple[int, ...]:
        """Positions of a block: all lengths that the flags give, ascending."""
        return recorded_lengths(self.flags["task"])

    def length_of(self, epoch: float) -> int:
        """Positions of a block in an epoch; of one after the last checkpoint, those of the epoch before."""
        known = [length for number, length in sorted(self.block_lengths.items()) if number <= epoch]
        return known[-1] if known else self.lengths()[0]

    def first_epoch_like(self, epoch: float) -> int:
        """The epoch from which on the blocks have been as long as in this one."""
        changes = [number for number in self.block_lengths
                   if 1 < number <= epoch and self.length_of(number - 1) != self.length_of(number)]
        return max(changes, default=1)

    def tokens_at(self, updates: Any) -> Any:
        """Tokens of all batches up to an update, or up to each of several."""
        spans = self.updates_of_epochs()
        tokens = [log["wpb"] * (end - begin) for log, (begin, end) in zip(self.train, spans)]
        return numpy.interp(updates, [0, *(end for _, end in spans)], [0, *numpy.cumsum(tokens)])

    def updates_of_epochs(self) -> List[Tuple[float, float]]:
        """The numbers of updates at the beginning and at the end of each epoch of `train`."""
        ends = [0, *(log["num_updates"] for log in self.train)]
        return list(zip(ends, ends[1:]))

    def progress_of_epochs(self) -> List[Tuple[float, float]]:
        """The fractions of the run that are over at the beginning and at the end of each epoch of `train`."""
        end = self.flags.get("optimization", {})
        total = schedule.total_updates(end.get("max_update", 0), end.get("max_epoch", 0),
                                       self.train[0]["num_updates"] / self.train[0]["epoch"])
        total = total or self.train[-1]["num_updates"]
        return [(min(1.0, begin / total), min(1.0, end / total)) for begin, end in self.updates_of_epochs()]

    def tokens_per_second(self) -> Optional[float]:
        """Over all epochs, the time of training steps alone; None for a run of less than a second."""
        timed = [(log, end - begin) for log, (begin, end) in zip(self.train, self.updates_of_epochs())
                 if "train_wall" in log]
        tokens = sum(log["wpb"] * updates for log, updates in timed)
        seconds = sum(log["train_wall"] for log, _ in timed)
        return tokens / seconds if seconds else None


def read_pretraining_run(folder: str) -> PretrainingRun:
    """Read a folder that fairseq-train was given as --save-dir, with its output in train.log.

    Raises:
        UsageError: no checkpoint or no log there, or nothing was validated yet.
    """
    log = os.path.join(folder, TRAIN_LOG)
    if not os.path.exists(log):
        raise UsageError(f"{folder}: no {TRAIN_LOG} found, expected the output of fairseq-train there")
    state = read_checkpoint(os.path.join(folder, CHECKPOINT), "RUN")
    name = section_of(state, "task").get("_name")
    if name != "entropy_masked_lm" or section_of(state, "criterion").get("_name") != "entropy_masked_lm":
        raise UsageError(f"{folder}: a run of --task {name} found, expected --task and --criterion entropy_masked_lm: "
                         "only these validate on the same masks")
    with naming(log), open(log, encoding="utf-8", errors="replace") as file:
        text = file.readlines()
    lines = [line for line in parse_log(text) if is_whole(*line)]
    valid, train = (last_of(numbers for kind, numbers in lines if kind == split) for split in ("valid", "train"))
    if not valid or not train:
        raise UsageError(f"{log}: no line about a validation or about an epoch found, expected one of each")
    return PretrainingRun(os.path.basename(os.path.normpath(folder)), state["cfg"], valid,
               with_unprinted_epochs(train, valid), hours_of(text), vocabulary_of(state["model"]),
               lengths_of_checkpoint(state))


def lengths_of_checkpoint(state: Dict[str, Any]) -> Dict[int, int]:
    """{epoch: positions of a block} in a checkpoint; empty where blocks do not grow."""
    learned = (state.get("extra_state") or {}).get(LEARNED, {})
    return {epoch: record.length for epoch, record in lengths_in(learned.get(STATE, {})).items()}


def event_of_length(length: int) -> str:
    """The event of blocks that have become as long as this."""
    return f"blocks of {length} begin"


def vocabulary_of(weights: Dict[str, Any]) -> int:
    """Number of symbols, from the largest table of embeddings there is, ours or fairseq's."""
    return max(len(weight) for name, weight in weights.items() if name.endswith("embed_tokens.weight"))


def parse_log(lines: Iterable[str]) -> Iterator[Tuple[str, Dict[str, float]]]:
    """Yield ("train" | "valid", {name: number}) for each line of statistics that fairseq printed."""
    for line in lines:
        match = LINE.search(line)
        if match:
            kind, epoch, rest = match.groups()
            numbers = {name: float(number) for name, number in NUMBER.findall(rest)}
            yield kind, {**numbers, "epoch": int(epoch)}


def is_whole(kind: str, numbers: Dict[str, float]) -> bool:
    """Whether a line of statistics has the numbers that a run is told by."""
    return numbers.keys() >= NEEDED[kind] and all(math.isfinite(numbers.get(name, 0)) for name in COUNTED)


def hours_of(lines: Iterable[str]) -> List[Tuple[int, float]]:
    """[(update, training time in hours)] in order; the last word on an update counts."""
    hours = {}
    for match in filter(None, map(HOURS.search, lines)):
        hours[int(match[1])] = float(match[2])
    return sorted(hours.items())


def last_of(logs: Iterable[Dict[str, float]]) -> List[Dict[str, float]]:
    """By update: a resumed run repeats what it had printed after its last checkpoint, and the last word counts."""
    return sorted({log["num_updates"]: log for log in logs}.values(), key=lambda log: log["num_updates"])


def with_unprinted_epochs(train: Sequence[Dict[str, float]],
                          valid: Sequence[Dict[str, float]]) -> List[Dict[str, float]]:
    """A run that was killed between the checkpoint at an epoch's end and the line about that epoch resumes with the
    next one and never prints that line; nor is there one of the epoch under way. Its place is taken by the
    updates of its last validation, with the tokens per update of the nearest epoch."""
    printed, unprinted = {log["epoch"] for log in train}, {}
    for log in valid:
        if log["epoch"] not in printed:
            nearest = min(train, key=lambda other: abs(other["epoch"] - log["epoch"]))
            unprinted[log["epoch"]] = {"epoch": log["epoch"], "num_updates": log["num_updates"], "wpb": nearest["wpb"]}
    return sorted([*train, *unprinted.values()], key=lambda log: log["num_updates"])


def dictionary_unigram_entropy(dictionary: Any) -> Optional[float]:
    """Unigram entropy of the training text in bits, from a data-bin's dict.txt; None where it has no counts.

    Raises:
        UsageError: not a dict.txt.
    """
    try:
        symbols = Dictionary.load(str(dictionary))
    except Exception as error:  # whatever the file is instead
        raise UsageError(f"--dict: {dictionary} cannot be read ({str(error).splitlines()[0]}), expected the dict.txt "
                         "of a data-bin") from error
    words = zip(symbols.symbols[symbols.nspecial :], symbols.count[symbols.nspecial :])
    return plateau.unigram_entropy([count for word, count in words if word != "<mask>"])
