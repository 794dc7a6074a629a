"""Which fraction of the tokens is masked, when.

    @RATES.add("name")
    def name(mask_prob, when):

        mask_prob   the fraction that --mask-prob says
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
