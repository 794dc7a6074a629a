"""Where do two recordings differ? Masks are compared by epoch and sample, whatever batch or rank they were made in.

Shapes: N samples that both have, W bytes of positions.
"""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from ..reporting.table import Table
from .facts import DIGESTS, FLAGS, first_difference
from .reader import EpochMasks, Recording

SHOWN = 10  # positions in the line on the first difference
NOTHING = EpochMasks(np.zeros(0, np.int64), np.zeros((0, 1), np.uint8))


class Overlap(NamedTuple):
    """What two recordings have in common in an epoch.

    samples: that both have; only_a, only_b: that one has; equal: samples with the same masks; masked_a, masked_b,
    masked_both: masked positions of the samples that both have; first: (sample, what differs), None = nothing.
    """

    samples: int
    only_a: int
    only_b: int
    equal: int
    masked_a: int
    masked_b: int
    masked_both: int
    first: Optional[Tuple[int, str]]

    @property
    def jaccard(self) -> Optional[float]:
        """Masked positions of both by those of either; None where nothing is masked."""
        either = self.masked_a + self.masked_b - self.masked_both
        return self.masked_both / either if either else None


class Difference(NamedTuple):
    """The result of a comparison. lines: what differs, none = equal; table: by epoch, None = the samples of the two are
    not the same text."""

    lines: List[str]
    table: Optional[Table]


def compare(a: Recording, b: Recording) -> Difference:
    """Compare two recordings.

    Raises:
        UsageError: a part is damaged.
    """
    lines = differing_facts(a, b)
    if lines:
        return Difference(lines, None)
    overlaps = {epoch: overlap(masks_of(a, epoch), masks_of(b, epoch)) for epoch in sorted({*a.epochs(), *b.epochs()})}
    first = next(((epoch, of_epoch.first) for epoch, of_epoch in overlaps.items() if of_epoch.first), None)
    if first is not None:
        epoch, (sample, difference) = first
        lines.append(f"first difference: epoch {epoch}, sample {sample}: {difference}")
    header = ("epoch", "samples in both", "only in A", "only in B", "equal masks", "masked in A", "masked in B",
              "masked in both", "Jaccard")
    rows = [(epoch, *of_epoch[:-1], "–" if of_epoch.jaccard is None else f"{of_epoch.jaccard:.4f}")
            for epoch, of_epoch in overlaps.items()]
    return Difference(lines, Table("", header, rows, "Masked positions are those of the samples in both."))


def masks_of(recording: Recording, epoch: int) -> EpochMasks:
    """The masks of an epoch, none where it was not recorded."""
    return recording.masks(epoch) if epoch in recording.epochs() else NOTHING


def differing_facts(a: Recording, b: Recording) -> List[str]:
    """A line where the recordings are of other data or blocks, so that their samples are not the same text."""
    for shard in sorted(a.facts["shards"].keys() & b.facts["shards"].keys()):
        of_a, of_b = ({**recording.facts, **recording.facts["shards"][shard]} for recording in (a, b))
        name = first_difference(of_a, of_b)
        if name in DIGESTS:
            return [f"not the same samples: B was recorded with {DIGESTS[name]}"]
        if name is not None:
            return [f"not the same samples: {name} {of_a.get(name)} in A, {of_b.get(name)} in B ({FLAGS[name]})"]
    return []


def overlap(a: EpochMasks, b: EpochMasks) -> Overlap:
    """Compare the masks of an epoch."""
    ids = np.intersect1d(a.ids, b.ids, assume_unique=True)
    width = max(a.bits.shape[1], b.bits.shape[1])
    of_a, of_b = (bits_at(masks, ids, width) for masks in (a, b))  # N x W
    is_equal = (of_a == of_b).all(1)
    only_a, only_b = (np.setdiff1d(x.ids, y.ids, assume_unique=True) for x, y in ((a, b), (b, a)))
    candidates = [(int(i[0]), text) for i, text in ((only_a, "not in B"), (only_b, "not in A")) if len(i)]
    if not is_equal.all():
        row = int(np.flatnonzero(~is_equal)[0])
        candidates.append((int(ids[row]), differing_positions(of_a[row], of_b[row])))
    return Overlap(len(ids), len(only_a), len(only_b), int(is_equal.sum()), number_of_bits(of_a), number_of_bits(of_b),
                   number_of_bits(of_a & of_b), min(candidates, default=None))


def bits_at(masks: EpochMasks, ids: np.ndarray, width: int) -> np.ndarray:
    """The bits of some samples, none of them missing: N x width uint8."""
    bits = masks.bits[np.searchsorted(masks.ids, ids)]
    return np.pad(bits, ((0, 0), (0, width - bits.shape[1])))


def differing_positions(a: np.ndarray, b: np.ndarray) -> str:
    """In words: the positions that one of two masks has, W uint8 each."""
    of_a, of_b = (np.flatnonzero(np.unpackbits(bits)) for bits in (a, b))
    only = np.setdiff1d(of_a, of_b), np.setdiff1d(of_b, of_a)
    return ", ".join(f"masked in {name} alone: {positions(x)}" for name, x in zip("AB", only, strict=True) if len(x))


def positions(numbers: np.ndarray) -> str:
    """As a list, not too long."""
    return " ".join(map(str, numbers[:SHOWN])) + (" …" if len(numbers) > SHOWN else "")


def number_of_bits(bits: np.ndarray) -> int:
    """How many are set."""
    return int(np.unpackbits(bits).sum())
