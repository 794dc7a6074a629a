"""Which tokens are masked (paper, section 2.3): a strategy is a priority, and `take` takes the k largest of each row.

    @STRATEGIES.add("name")
    def name(scores, candidates, k, draw):

        scores      B x T fp32, finite: large = uncertain; None for a strategy that needs none
        candidates  B x T bool: what may be masked
        k           B int64: how many will be taken in each row
        draw        noise and coins: a `masking.noise.Draw`
        returns     B x T: larger first, ties to the lower position; what it is at other positions does not matter

needs_scores: whether somebody has to score the tokens.
"""

from ..registry import Registry

STRATEGIES = Registry("--mask-strategy", needs_scores=True)

from . import chance, ranked  # noqa: E402, F401
