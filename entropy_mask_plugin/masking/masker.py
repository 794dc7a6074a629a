"""From a clean batch to a masked one: which positions, what the model sees there, what it must predict.

Shapes: B sentences, T positions.
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import corruption, devices, refinement
from .devices import to_device_async
from .noise import CORRUPTION, REPLACEMENT, SELECTION, Draw
from .policy import Policy, check_ranges
from .rates import RATES
from .scores import Scores
from .strategies import STRATEGIES, check, select
from .take import number_to_mask
from .units import UNITS, check_symbols, check_units
from .vocabulary import Vocabulary, ordinary_on
from .when import When


class Masked(NamedTuple):
    """A masked batch.

    src_tokens, target: B x T int64, target is `padding` where nothing is to be predicted; selected: B x T bool;
    counts: B int64 on the host, how many are selected in each row, None where only the device knows; scores: B x T
    fp32, those that decided, None where the selection used none.
    """

    src_tokens: Tensor
    target: Tensor
    selected: Tensor
    counts: Optional[Tensor]
    scores: Optional[Tensor]


class Masker:
    """Masks batches by a policy.

    Args:
        policy: what is masked.
        vocabulary: ids and subword strings.
        seed: of the noise.
    Raises:
        ValueError: the policy names a part that is not registered, has a number out of its range, or has a unit that
            cannot be made of this vocabulary.
    """

    def __init__(self, policy: Policy, vocabulary: Vocabulary, seed: int):
        check_ranges(policy.mask_prob, policy.leave_unmasked_prob, policy.random_token_prob, policy.mask_count)
        check_symbols(policy.unit, vocabulary.symbols)
        self.policy, self.vocabulary, self.seed = policy, vocabulary, seed
        self.traits = STRATEGIES[policy.strategy].traits
        self.unit, self.rate = UNITS[policy.unit].fn, RATES[policy.rate].fn

    def __call__(self, tokens: Tensor, ids: Tensor, maskable: Tensor, scores: Optional[Scores], when: When,
                 n_maskable: Optional[Sequence[int]] = None) -> Masked:
        """Mask a batch.

        Args:
            tokens: B x T int64, clean.
            ids: B int64, of the sentences; the noise depends on them.
            maskable: B x T bool.
            scores: from a source; None = choose by noise, whatever the strategy.
            when: the epoch and update of this batch.
            n_maskable: B integers, the row sums of `maskable`, where the host knows them; None = wait for the device.
        Returns:
            a new batch; the arguments stay as they are.
        Raises:
            ValueError: the strategy, the unit or the source returns something other than it must.
        """
        policy = self.policy
        draw = Draw(self.seed, 0 if policy.static_masks else when.epoch, ids, tokens.size(1), when.update)
        units = self.unit(tokens, maskable, self.vocabulary, draw, **policy.options_of("unit"))
        check_units(units, tokens, f"--mask-unit {policy.unit}")
        n = torch.as_tensor(maskable.sum(1).tolist() if n_maskable is None else n_maskable)
        fraction = self.rate(policy.mask_prob, when, **policy.options_of("rate"))
        counts = number_to_mask(n, fraction, policy.mask_count)  # on the host
        k = to_device_async(counts, tokens.device)
        selected, values = self.select(scores, maskable, k, draw, units)
        src_tokens, target = corruption.corrupt(tokens, selected, self.vocabulary.mask, self.vocabulary.padding)
        if policy.leave_unmasked_prob or policy.random_token_prob:
            src_tokens = self.with_80_10_10(src_tokens, tokens, selected, draw)
        return Masked(src_tokens, target, selected, counts if units is None else None, values)

    def select(self, scores: Optional[Scores], maskable: Tensor, k: Tensor, draw: Draw,
               units: Optional[Tensor] = None) -> Tuple[Tensor, Optional[Tensor]]:
        """Choose the positions.

        Args:
            scores: as for `__call__`.
            maskable: B x T bool.
            k: B int64 on the device, how many to select in each row.
            draw: the noise of this batch.
            units: B x T int64, what is masked together; None = each token alone.
        Returns:
            selected, B x T bool, and the scores that decided, B x T fp32, exact near each cut; None where the strategy
            needs none.
        """
        options = self.policy.options_of("strategy")

        def choose(values):
            return select(self.policy.strategy, values, maskable, k, draw, units, **options)

        if not self.traits["needs_scores"]:
            return choose(None), None
        if scores is None:
            return choose(draw.noise(SELECTION)), None
        check(scores.values, maskable, f"scores (--mask-score {self.policy.score})")
        if scores.exact_at is None or self.policy.needs_exact_scores:
            values = scores.exact()
        else:
            values = self.refined(scores, maskable, choose)
        return choose(values), values

    @staticmethod
    def refined(scores: Scores, maskable: Tensor, choose: Any) -> Tensor:
        """The scores with exact values near the cuts of `choose` (scores -> B x T bool): B x T fp32."""
        assert scores.exact_at is not None, "exact scores need no refinement"
        without_syncs = devices.syncs_are_expensive(scores.values.device)
        refine = refinement.refine_nearest if without_syncs else refinement.refine_near_cut
        return refine(scores.values, maskable, choose, scores.exact_at)

    def with_80_10_10(self, src_tokens: Tensor, tokens: Tensor, selected: Tensor, draw: Draw) -> Tensor:
        """`src_tokens` with BERT's 80/10/10 instead of 100 % <mask>: B x T int64."""
        ordinary = ordinary_on(self.vocabulary, tokens.device)
        replacement = corruption.random_tokens(draw.noise(REPLACEMENT), ordinary)
        return corruption.apply_80_10_10(src_tokens, tokens, selected, self.policy.leave_unmasked_prob,
                                         self.policy.random_token_prob, draw.noise(CORRUPTION), replacement)
