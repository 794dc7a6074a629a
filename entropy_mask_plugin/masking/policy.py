"""A masking policy: its parts and their settings."""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Union

from .rates import Ramp, Rate, ends, parse_rate
from .registry import Registry
from .scores import SCORES
from .strategies import STRATEGIES
from .units import UNITS, token

# {field of `Policy`: the registry of its names}
PARTS: Dict[str, Registry] = {"score": SCORES, "strategy": STRATEGIES, "unit": UNITS}
GUIDED_BY = ("tokens", "sequences")


def check_ranges(mask_prob: Union[float, str, Ramp], leave_unmasked_prob: float, random_token_prob: float,
                 mask_count: Optional[int] = None, guided_fraction: Union[float, str, Ramp] = 1.0,
                 guided_by: str = "tokens") -> None:
    """Check the numbers of a `Policy`.

    Raises:
        ValueError: names the first one out of its range, as a flag.
    """
    fraction, two = "a fraction in [0, 1]", ", or two of them, FIRST:LAST"
    for flag, value, is_valid, expected in (
            ("--mask-prob", mask_prob, is_rate(mask_prob, lambda p: 0 < p <= 1), f"a fraction in (0, 1]{two}"),
            ("--leave-unmasked-prob", leave_unmasked_prob, 0 <= leave_unmasked_prob <= 1, fraction),
            ("--random-token-prob", random_token_prob, 0 <= random_token_prob <= 1 - leave_unmasked_prob,
             f"{fraction}, at most 1 together with --leave-unmasked-prob"),
            ("--mask-count", mask_count, mask_count is None or 1 <= mask_count < 2**31, "1 or more, below 2^31"),
            ("--guided-fraction", guided_fraction, is_rate(guided_fraction, lambda f: 0 <= f <= 1), fraction + two),
            ("--guided-by", guided_by, guided_by in GUIDED_BY, " or ".join(GUIDED_BY))):
        if not is_valid:
            raise ValueError(f"{flag}: {value} found, expected {expected}")


def is_rate(value: Any, is_valid: Any) -> bool:
    """Whether a value is a number or a ramp (`rates.parse_rate`) whose ends are valid."""
    try:
        return all(map(is_valid, ends(parse_rate(value))))
    except (TypeError, ValueError):
        return False


class Policy(NamedTuple):
    """How batches are masked.

    strategy, score, unit: names in the registries of PARTS.
    mask_prob: fraction of the maskable tokens of each sentence, in (0, 1]; mask_count: a number of tokens instead.
    leave_unmasked_prob, random_token_prob: fractions of the masked tokens that stay as they are, or become random ones.
    static_masks: noise does not depend on the epoch, so that random masks repeat.
    guided_fraction: of the masked tokens, how many follow the scores, in [0, 1]; the others are random.
    guided_by: "tokens" = that fraction of each sentence's masks; "sequences" = all masks of that fraction of the
        sentences.
    options: {name: value} of the parts.

    mask_prob and guided_fraction may change over the run: a `rates.Ramp`, or as the user types it ("0.3:0.15").
    """

    strategy: str = "high"
    score: str = "entropy"
    unit: str = "token"
    mask_prob: Union[Rate, str] = 0.15
    mask_count: Optional[int] = None
    leave_unmasked_prob: float = 0.0
    random_token_prob: float = 0.0
    static_masks: bool = False
    guided_fraction: Union[Rate, str] = 1.0
    guided_by: str = "tokens"
    options: Mapping[str, Any] = {}

    @property
    def needs_scores(self) -> bool:
        """Whether the tokens must be scored, which costs a forward pass."""
        return STRATEGIES[self.strategy].traits["needs_scores"]

    @property
    def needs_exact_scores(self) -> bool:
        """Whether scores that are exact near the cuts alone do not suffice."""
        return UNITS[self.unit].fn is not token.token or not STRATEGIES[self.strategy].traits["cuts_scores"]

    @property
    def changes(self) -> bool:
        """Whether the policy depends on how much of the run is over."""
        return any(isinstance(parse_rate(rate), Ramp) for rate in (self.mask_prob, self.guided_fraction))

    def options_of(self, part: str) -> Dict[str, Any]:
        """{option: value} of the policy's part; part: a key of PARTS."""
        return PARTS[part][getattr(self, part)].chosen(self.options)
