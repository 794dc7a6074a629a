"""Which fraction of the tokens is masked, and when.

    @RATES.add("name")
    def name(mask_prob, when):

        mask_prob   the fraction given by --mask-prob, in (0, 1]
        when        a `masking.when.When`
        returns     a fraction in (0, 1]
"""

from .registry import Registry
from .when import When

RATES = Registry("--mask-prob")


@RATES.add("constant")
def constant(mask_prob: float, when: When) -> float:
    """The same fraction in every update."""
    return mask_prob
