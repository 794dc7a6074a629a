"""A masking policy: its parts and their settings."""

from typing import Any, Dict, Mapping, NamedTuple, Optional

from .rates import RATES
from .registry import Registry
from .scores import SCORES
from .strategies import STRATEGIES
from .units import UNITS, token

# {field of `Policy`: the registry of its names}
PARTS: Dict[str, Registry] = {"score": SCORES, "strategy": STRATEGIES, "unit": UNITS, "rate": RATES}


def check_ranges(mask_prob: float, leave_unmasked_prob: float, random_token_prob: float,
                 mask_count: Optional[int] = None) -> None:
    """Check the numbers of a `Policy`.

    Raises:
        ValueError: names the first one out of its range, as a flag.
    """
    fraction = "a fraction in [0, 1]"
    for flag, value, is_valid, expected in (
            ("--mask-prob", mask_prob, 0 < mask_prob <= 1, "a fraction in (0, 1]"),
            ("--leave-unmasked-prob", leave_unmasked_prob, 0 <= leave_unmasked_prob <= 1, fraction),
            ("--random-token-prob", random_token_prob, 0 <= random_token_prob <= 1 - leave_unmasked_prob,
             f"{fraction}, at most 1 together with --leave-unmasked-prob"),
            ("--mask-count", mask_count, mask_count is None or mask_count >= 1, "1 or more")):
        if not is_valid:
            raise ValueError(f"{flag}: {value} found, expected {expected}")


class Policy(NamedTuple):
    """How batches are masked.

    strategy, score, unit, rate: names in the registries of PARTS.
    mask_prob: fraction of the maskable tokens of each sentence, in (0, 1]; mask_count: a number of tokens instead.
    leave_unmasked_prob, random_token_prob: fractions of the masked tokens that stay as they are, or become random ones.
    static_masks: noise does not depend on the epoch, so that random masks repeat.
    options: {name: value} of the parts.
    """

    strategy: str = "high"
    score: str = "entropy"
    unit: str = "token"
    rate: str = "constant"
    mask_prob: float = 0.15
    mask_count: Optional[int] = None
    leave_unmasked_prob: float = 0.0
    random_token_prob: float = 0.0
    static_masks: bool = False
    options: Mapping[str, Any] = {}

    @property
    def needs_scores(self) -> bool:
        """Whether the tokens must be scored, which costs a forward pass."""
        return STRATEGIES[self.strategy].traits["needs_scores"]

    @property
    def needs_exact_scores(self) -> bool:
        """Whether scores that are exact near the cuts alone do not suffice."""
        return UNITS[self.unit].fn is not token.token or not STRATEGIES[self.strategy].traits["cuts_scores"]

    def options_of(self, part: str) -> Dict[str, Any]:
        """{option: value} of the policy's part; part: a key of PARTS."""
        return PARTS[part][getattr(self, part)].chosen(self.options)
