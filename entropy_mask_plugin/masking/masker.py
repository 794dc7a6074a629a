"""From a clean batch to a masked one: which positions, what the model sees there, what it must predict.

Shapes: B sentences, T positions, R tokens that may replace another.
"""

from typing import NamedTuple, Optional, Tuple

from torch import Tensor

from . import corruption, refinement
from .corruption import Corruption
from .noise import CORRUPTION, REPLACEMENT, SELECTION, Draw
from .scores import Scores
from .strategies import STRATEGIES
from .take import take


class When(NamedTuple):
    """All that a policy knows of time. epoch: from 1; update: from 0; progress: share of the run that is over."""

    epoch: int
    update: int
    progress: float = 0.0


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
        shares: what becomes of a selected token.
        vocabulary: see `Vocabulary`.
        seed: of all noise.
        static: noise does not depend on the epoch, so that random masks repeat.
    Raises:
        ValueError: there is no such strategy.
    """

    def __init__(self, strategy: str, shares: Corruption, vocabulary: Vocabulary, seed: int, static: bool = False):
        self.strategy, self.shares, self.vocabulary = STRATEGIES[strategy], shares, vocabulary
        self.seed, self.static = seed, static

    def __call__(self, tokens: Tensor, ids: Tensor, maskable: Tensor, k: Tensor, scores: Optional[Scores],
                 when: When) -> Masked:
        """Mask k tokens of each sentence.

        Args:
            tokens: B x T int64, clean.
            ids: B int64, of the sentences: what their noise depends on.
            maskable: B x T bool; k: B int64, at most as many.
            scores: of a source; None = choose by noise, whatever the strategy.
        """
        draw = Draw(self.seed, 0 if self.static else when.epoch, ids, tokens.size(1), when.update)
        selected, values = self.select(scores, maskable, k, draw)
        src_tokens, target = corruption.corrupt(tokens, selected, self.vocabulary.mask, self.vocabulary.padding)
        if self.shares.leave_unmasked_prob or self.shares.random_token_prob:
            src_tokens = self.softened(src_tokens, tokens, selected, draw)
        return Masked(src_tokens, target, selected, values)

    def select(self, scores: Optional[Scores], maskable: Tensor, k: Tensor,
               draw: Draw) -> Tuple[Tensor, Optional[Tensor]]:
        """Which positions, B x T bool, and the scores that decided, B x T fp32, made exact near the cut."""

        def choose(values):
            return take(self.strategy.part(values, maskable, k, draw), maskable, k)

        if not self.strategy.traits["needs_scores"]:
            return choose(None), None
        if scores is None:
            return choose(draw.noise(SELECTION)), None
        values = scores.values
        if scores.exact_at is not None:
            no_syncs = refinement.syncs_are_expensive(values.device)
            refine = refinement.refine_nearest if no_syncs else refinement.refine_near_cut
            values = refine(values, maskable, choose, scores.exact_at)
        return choose(values), values

    def softened(self, src_tokens: Tensor, tokens: Tensor, selected: Tensor, draw: Draw) -> Tensor:
        """BERT's 80/10/10 instead of 100 % <mask>: B x T int64."""
        if self.vocabulary.ordinary.device != tokens.device:  # it moves once
            self.vocabulary = self.vocabulary._replace(ordinary=self.vocabulary.ordinary.to(tokens.device))
        replacement = corruption.random_tokens(draw.noise(REPLACEMENT), self.vocabulary.ordinary)
        return corruption.soften(src_tokens, tokens, selected, self.shares.leave_unmasked_prob,
                                 self.shares.random_token_prob, draw.noise(CORRUPTION), replacement)
