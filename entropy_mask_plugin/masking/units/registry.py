"""Which tokens are masked together, one unit a file.

    @UNITS.add("name")
    def name(tokens, candidates, vocabulary, draw):

        tokens      B x T int64, clean
        candidates  B x T bool: what may be masked
        vocabulary  a `masking.masker.Vocabulary`
        draw        a `masking.noise.Draw`
        returns     B x T int64 in -1 ... T - 1: tokens of a sentence with the same number are masked together, tokens
                    with -1 never; or None: each token alone

Shapes: B sentences, T positions.
"""

from ..registry import Registry

UNITS = Registry("--mask-unit")
