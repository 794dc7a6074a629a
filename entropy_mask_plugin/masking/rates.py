"""Numbers that may change over a run: --mask-prob and --guided-fraction.

    0.15               the same in every update
    0.3:0.15           from the first to the last along a straight line, over all updates of the run
    NAME:0.3:0.15      along a registered schedule:

    @RATES.add("name")
    def name(first, last, progress):

        first, last   floats, at the beginning and at the end
        progress      the fraction of the run that is over, in [0, 1]
        returns       a float between first and last
"""

from typing import Callable, NamedTuple, Tuple, Union

from .registry import Registry

RATES = Registry("--mask-prob, --guided-fraction")
INTERVALS = 8  # of Simpson's rule, even


class Ramp(NamedTuple):
    """A number that goes from `first` to `last` along a schedule of RATES."""

    first: float
    last: float
    schedule: str = "linear"

    def __str__(self) -> str:  # as the user types it
        schedule = "" if self.schedule == "linear" else f"{self.schedule}:"
        return f"{schedule}{self.first:g}:{self.last:g}"


Rate = Union[float, Ramp]


@RATES.add("linear")
def linear(first: float, last: float, progress: float) -> float:
    """In a straight line."""
    return (1 - progress) * first + progress * last  # exact at both ends


def parse_rate(text: Union[str, float, Ramp]) -> Rate:
    """What a user typed, see above; numbers and ramps are returned as they are.

    Raises:
        ValueError: not of that form, or there is no such schedule.
    """
    if not isinstance(text, str):
        return text
    *schedule, first, last = text.split(":") if ":" in text else (text, text)
    if len(schedule) > 1:
        raise ValueError(f"{text} has {len(schedule) + 2} parts")
    for name in schedule:
        if name not in RATES:
            raise ValueError(f"{name} is not a registered schedule, expected {RATES.expected(name)}")
    ramp = Ramp(float(first), float(last), *schedule)
    return ramp.first if ramp.first == ramp.last else ramp


def rate_at(rate: Rate, progress: float) -> float:
    """The value of a rate when this fraction of the run is over."""
    return RATES[rate.schedule].fn(rate.first, rate.last, progress) if isinstance(rate, Ramp) else rate


def ends(rate: Rate) -> Tuple[float, float]:
    """The values of a rate at the beginning and at the end of the run."""
    return (rate.first, rate.last) if isinstance(rate, Ramp) else (rate, rate)


def mean_over(function: Callable[[float], float], begin: float = 0.0, end: float = 1.0) -> float:
    """The mean of a function of the progress over a part of the run, by Simpson's rule: exact for cubic functions."""
    points = [begin + (end - begin) * i / INTERVALS for i in range(INTERVALS + 1)]
    weights = [1, *([4, 2] * (INTERVALS // 2))[:-1], 1]
    return sum(weight * function(point) for weight, point in zip(weights, points, strict=True)) / (3 * INTERVALS)
