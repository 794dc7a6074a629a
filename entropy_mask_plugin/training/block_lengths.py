"""Blocks that grow over a run: --tokens-per-sample FIRST:LAST, and --grow-tokens-per-sample, which says when.

    128        the same length in every epoch
    32:128     32, 64, 128 positions: doubled until LAST is reached

An epoch keeps the length that it began with. What decides about the next one is known when it begins, and part of the
checkpoint: the validation losses of the epochs before it, or how much of the run is over.
"""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .plateau import is_on_plateau

LEFT, STALLED = "left", "stalled"
STATE = "block_lengths"  # key of `BlockLengths.state_dict` in a checkpoint
PROGRESS = 0.05  # bits by which an epoch on the plateau must lower the validation loss; else it has stalled
When = Union[str, Tuple[float, ...]]  # LEFT, STALLED, or fractions of the run


def parse_lengths(value: Union[int, str]) -> Tuple[int, ...]:
    """The lengths of --tokens-per-sample, from the first to the last.

    Raises:
        ValueError: not of the form N or FIRST:LAST.
    """
    first, *rest = [int(number) for number in str(value).split(":")]
    last = rest[0] if rest else first
    if len(rest) > 1 or not 2 <= first <= last:
        raise ValueError(f"{value} are no lengths")
    lengths = [first]
    while lengths[-1] < last:
        lengths.append(min(2 * lengths[-1], last))
    return tuple(lengths)


def as_setting(text: str) -> Union[int, str]:
    """What a user typed for --tokens-per-sample: one length stays the number that it is in YAML and in checkpoints."""
    return int(text) if text.isdecimal() else text


def parse_when(text: Union[str, float]) -> When:
    """--grow-tokens-per-sample.

    Raises:
        ValueError: neither one of the words nor ascending fractions in (0, 1).
    """
    if text in (LEFT, STALLED):
        return str(text)
    fractions = tuple(float(fraction) for fraction in str(text).split(","))
    if list(fractions) != sorted(set(fractions)) or not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"{text} are no ascending fractions in (0, 1)")
    return fractions


def is_time_to_grow(losses: Sequence[float], unigram: float, when: str) -> bool:
    """Whether the blocks become longer after an epoch.

    Args:
        losses: validation losses (bits) at the ends of the epochs with the current length.
        unigram: unigram entropy of the training data, bits.
        when: LEFT: once the last loss is below the unigram plateau; STALLED: also once it stays there, that is, less
            than PROGRESS below the lowest loss before it.
    """
    if not losses:
        return False
    *before, last = losses
    if not is_on_plateau(last, unigram):
        return True
    return when == STALLED and bool(before) and not last <= min(before) - PROGRESS


class EpochRecord(NamedTuple):
    """length: positions of a block; loss: the last validation's in this epoch, bits, None = none yet."""

    length: int
    loss: Optional[float] = None


class BlockLengths:
    """How long the blocks of each epoch are.

    Args:
        lengths: of `parse_lengths`.
        when: of `parse_when`; without effect for a single length.
        unigram: unigram entropy of the training data, bits; None = unknown, for fractions only.
    """

    def __init__(self, lengths: Sequence[int], when: When, unigram: Optional[float] = None):
        self.lengths, self.when, self.unigram = tuple(lengths), when, unigram
        self.epochs: Dict[int, EpochRecord] = {}
        self.updates = 0  # that are done
        self.validated = -1  # the update of the last validation

    @property
    def longest(self) -> int:
        """Positions of the longest blocks."""
        return self.lengths[-1]

    @property
    def grows(self) -> bool:
        """Whether there are several lengths."""
        return len(self.lengths) > 1

    def begin_epoch(self, epoch: int, max_update: int = 0, max_epoch: int = 0) -> int:
        """The length of an epoch, decided the first time that it is asked for.

        Args:
            epoch: counted from 1.
            max_update: where the run ends; 0 = no such end.
            max_epoch: likewise; whichever comes first counts.
        """
        record = self.epochs.get(epoch)
        if record is None or record.length not in self.lengths:
            self.epochs[epoch] = record = EpochRecord(self.next_length(epoch, max_update, max_epoch))
        return record.length

    def is_over(self, epoch: int, max_update: int, max_epoch: int) -> bool:
        """Whether the run ends before an epoch; arguments as for `begin_epoch`."""
        return 0 < max_epoch < epoch or 0 < max_update <= self.updates

    def latest(self) -> int:
        """The length of the last epoch that began; the first length where none did."""
        return min(self.epochs[max(self.epochs)].length, self.longest) if self.epochs else self.lengths[0]

    def next_length(self, epoch: int, max_update: int, max_epoch: int) -> int:
        """The length of an epoch that begins; arguments as for `begin_epoch`."""
        if not isinstance(self.when, str):
            progress = progress_at(epoch, self.updates, max_update, max_epoch)
            return self.lengths[sum(progress >= fraction for fraction in self.when)] if self.grows else self.longest
        before = [number for number in self.epochs if number < epoch]
        if not before or not self.grows:
            return self.lengths[0]
        last = max(before)
        losses = [self.epochs[i].loss for i in range(self.first_epoch_like(last), epoch) if i in self.epochs]
        assert self.unigram is not None, "check_growth refuses such a run"
        grows = is_time_to_grow([loss for loss in losses if loss is not None], self.unigram, self.when)
        rest = [length for length in self.lengths if length >= self.epochs[last].length] or [self.longest]
        return rest[min(int(grows), len(rest) - 1)]

    def first_epoch_like(self, epoch: int) -> int:
        """The epoch from which on the blocks have been as long as in this one."""
        if not self.grows:  # fairseq loads the data once, so that only its first epoch is in the record
            return 1
        return first_epoch_like({number: record.length for number, record in self.epochs.items()}, epoch)

    def record_loss(self, epoch: int, updates: int, loss: float) -> None:
        """Remember the loss (bits) of a validation after so many updates; of several subsets, the first counts."""
        if self.grows and updates != self.validated and epoch in self.epochs:
            self.validated = updates
            self.epochs[epoch] = self.epochs[epoch]._replace(loss=loss)

    def state_dict(self) -> Dict[str, Any]:
        """What a checkpoint contains; nothing where there is a single length."""
        epochs = {epoch: list(record) for epoch, record in self.epochs.items()}
        return {"epochs": epochs, "updates": self.updates} if self.grows else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`; from an empty one, begin with the shortest blocks."""
        if self.grows:
            self.epochs = lengths_in(state)
            self.updates = state.get("updates", 0)


def lengths_in(state: Mapping[str, Any]) -> Dict[int, EpochRecord]:
    """{epoch: its record} in a `state_dict`."""
    return {int(epoch): EpochRecord(*record) for epoch, record in state.get("epochs", {}).items()}


def first_epoch_like(lengths: Mapping[int, int], epoch: int) -> int:
    """The epoch from which on the blocks have been as long as in this one. lengths: {epoch: positions of a block}."""
    while epoch > 1 and lengths.get(epoch - 1, lengths.get(epoch)) == lengths.get(epoch):
        epoch -= 1
    return epoch


def progress_at(epoch: int, updates: int, max_update: int, max_epoch: int) -> float:
    """The fraction of the run that is over when an epoch begins; arguments as for `BlockLengths.begin_epoch`, updates:
    that are done."""
    return max(updates / max_update if max_update else 0.0, (epoch - 1) / max_epoch if max_epoch else 0.0)
