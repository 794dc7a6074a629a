"""From a clean batch to a masked one: which positions, what the model sees there, what it must predict.

Shapes: B sentences, T positions, R tokens that may replace another.
"""

from typing import Callable, NamedTuple, Optional, Tuple

from torch import Tensor

from . import corruption, refinement
from .noise import CORRUPTION, REPLACEMENT, SELECTION, Draw
from .scores import Scores
from .strategies import STRATEGIES, select


class When(NamedTuple):
    """All that a policy knows of time. epoch: from 1; update: from 0."""

    epoch: int
    update: int


class Vocabulary(NamedTuple):
    """mask, padding: ids; ordinary: R int64, the tokens that may replace another (no specials)."""

    mask: int
    padding: int
    ordinary: Tensor


class Masked(NamedTuple):
    """src_tokens, target: B x T int64, target is `padding` where nothing is to be predicted; selected: B x T bool;
    scores: B x T fp32 that decided, None where none did."""

    src_tokens: Tensor
    target: Tensor
    selected: Tensor
    scores: Optional[Tensor]


class Masker:
    """
    Args:
        strategy: a name in STRATEGIES.
        vocabulary: see `Vocabulary`.
        seed: of all noise.
        leave_unmasked_prob, random_token_prob: fractions of the selected tokens that become something else than <mask>.
        static: noise does not depend on the epoch, so that random masks repeat.
    Raises:
        ValueError: there is no such strategy.
    """

    def __init__(self, strategy: str, vocabulary: Vocabulary, seed: int, leave_unmasked_prob: float = 0.0,
                 random_token_prob: float = 0.0, static: bool = False):
        self.strategy, self.traits = strategy, STRATEGIES[strategy].traits
        self.vocabulary, self.seed, self.static = vocabulary, seed, static
        self.leave_unmasked_prob, self.random_token_prob = leave_unmasked_prob, random_token_prob

    def __call__(self, tokens: Tensor, ids: Tensor, maskable: Tensor, k: Tensor, scores: Optional[Scores],
                 when: When) -> Masked:
        """Mask k tokens of each sentence.

        Args:
            tokens: B x T int64, clean.
            ids: B int64, of the sentences: what their noise depends on.
            maskable: B x T bool; k: B int64, at most as many (`take.number_to_mask`).
            scores: of a source; None = choose by noise, whatever the strategy.
        """
        draw = Draw(self.seed, 0 if self.static else when.epoch, ids, tokens.size(1), when.update)
        selected, values = self.select(scores, maskable, k, draw)
        src_tokens, target = corruption.corrupt(tokens, selected, self.vocabulary.mask, self.vocabulary.padding)
        if self.leave_unmasked_prob or self.random_token_prob:
            src_tokens = self.with_80_10_10(src_tokens, tokens, selected, draw)
        return Masked(src_tokens, target, selected, values)

    def select(self, scores: Optional[Scores], maskable: Tensor, k: Tensor,
               draw: Draw) -> Tuple[Tensor, Optional[Tensor]]:
        """Which positions, B x T bool, and the scores that decided, B x T fp32, exact wherever they decide."""

        def choose(values):
            return select(self.strategy, values, maskable, k, draw)

        if not self.traits["needs_scores"]:
            return choose(None), None
        if scores is None:
            return choose(draw.noise(SELECTION)), None
        values = self.refined(scores, maskable, choose) if self.traits["cuts_scores"] else scores.exact()
        return choose(values), values

    @staticmethod
    def refined(scores: Scores, maskable: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """B x T fp32: exact near the cuts."""
        if scores.exact_at is None:
            return scores.values
        without_syncs = refinement.syncs_are_expensive(scores.values.device)
        refine = refinement.refine_nearest if without_syncs else refinement.refine_near_cut
        return refine(scores.values, maskable, choose, scores.exact_at)

    def with_80_10_10(self, src_tokens: Tensor, tokens: Tensor, selected: Tensor, draw: Draw) -> Tensor:
        """BERT's 80/10/10 instead of 100 % <mask>: B x T int64."""
        if self.vocabulary.ordinary.device != tokens.device:  # it moves once
            self.vocabulary = self.vocabulary._replace(ordinary=self.vocabulary.ordinary.to(tokens.device))
        replacement = corruption.random_tokens(draw.noise(REPLACEMENT), self.vocabulary.ordinary)
        return corruption.apply_80_10_10(src_tokens, tokens, selected, self.leave_unmasked_prob,
                                         self.random_token_prob, draw.noise(CORRUPTION), replacement)
