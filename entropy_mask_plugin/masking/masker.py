"""From a clean batch to a masked one: which positions, what the model sees there, what it must predict.

Shapes: B sentences, T positions.
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import corruption, devices, refinement
from .devices import to_device_async
from .noise import CORRUPTION, GUIDED, REPLACEMENT, SELECTION, Draw, uniform
from .policy import Policy, check_ranges
from .rates import parse_rate, rate_at
from .scores import Scores
from .strategies import STRATEGIES, check, select
from .take import number_to_mask, take
from .units import UNITS, check_symbols, check_units
from .vocabulary import Vocabulary, ordinary_on
from .when import When


class Selected(NamedTuple):
    """Which positions of a batch are masked, and why.

    selected: B x T bool; guided: B x T bool, those that the scores chose; scores: B x T fp32, those that decided, exact
    near each cut, 0 in sentences that were not scored. Both are None where the selection used no scores. is_scored: B
    bool, None where all sentences were.
    """

    selected: Tensor
    guided: Optional[Tensor] = None
    scores: Optional[Tensor] = None
    is_scored: Optional[Tensor] = None


class Masked(NamedTuple):
    """A masked batch.

    src_tokens, target: B x T int64, target is `padding` where nothing is to be predicted; selected, guided, scores,
    is_scored: see `Selected`; counts: B int64 on the host, how many are selected in each row, None where only the
    device knows.
    """

    src_tokens: Tensor
    target: Tensor
    selected: Tensor
    guided: Optional[Tensor]
    scores: Optional[Tensor]
    is_scored: Optional[Tensor]
    counts: Optional[Tensor]


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
        check_ranges(policy.mask_prob, policy.leave_unmasked_prob, policy.random_token_prob, policy.mask_count,
                     policy.guided_fraction, policy.guided_by)
        check_symbols(policy.unit, vocabulary.symbols)
        self.policy, self.vocabulary, self.seed = policy, vocabulary, seed
        self.traits = STRATEGIES[policy.strategy].traits
        self.unit = UNITS[policy.unit].fn
        self.mask_prob, self.guided_fraction = parse_rate(policy.mask_prob), parse_rate(policy.guided_fraction)

    def __call__(self, tokens: Tensor, ids: Tensor, maskable: Tensor, scores: Optional[Scores], when: When,
                 n_maskable: Optional[Sequence[int]] = None) -> Masked:
        """Mask a batch.

        Args:
            tokens: B x T int64, clean.
            ids: B int64, of the sentences; the noise depends on them.
            maskable: B x T bool.
            scores: from a source; None = mask at random, whatever the strategy. With `rows`, the other sentences are
                masked at random.
            when: the epoch, update and progress of this batch.
            n_maskable: B integers, the row sums of `maskable`, where the host knows them; None = wait for the device.
        Returns:
            a new batch; the arguments stay as they are.
        Raises:
            ValueError: the strategy, the unit or the source returns something other than it must.
        """
        policy = self.policy
        draw = Draw(self.seed, self.epoch_of_noise(when), ids, tokens.size(1), when.update)
        units = self.unit(tokens, maskable, self.vocabulary, draw, **policy.options_of("unit"))
        check_units(units, tokens, f"--mask-unit {policy.unit}")
        n = torch.as_tensor(maskable.sum(1).tolist() if n_maskable is None else n_maskable)
        counts = number_to_mask(n, rate_at(self.mask_prob, when.progress), policy.mask_count)  # on the host
        k = to_device_async(counts, tokens.device)
        chosen = self.select(scores, maskable, k, draw, units, self.fraction_of_tokens(when))
        return Masked(*self.corrupt(tokens, chosen.selected, draw), *chosen, counts if units is None else None)

    def mask_at(self, tokens: Tensor, ids: Tensor, selected: Tensor, counts: Tensor, when: When) -> Masked:
        """Mask a batch at given positions, in place of those that the policy would choose.

        Args:
            tokens: as for `__call__`.
            ids: likewise.
            selected: B x T bool, the positions.
            counts: B int64 on the host, how many they are in each row.
            when: as for `__call__`.
        """
        draw = Draw(self.seed, self.epoch_of_noise(when), ids, tokens.size(1), when.update)
        return Masked(*self.corrupt(tokens, selected, draw), *Selected(selected), counts)

    @property
    def is_partly_guided(self) -> bool:
        """Whether some of the masks are left to chance although there are scores."""
        return self.guided_fraction != 1

    def epoch_of_noise(self, when: When) -> int:
        """The epoch that the noise depends on."""
        return 0 if self.policy.static_masks else when.epoch

    def fraction_of_tokens(self, when: When) -> float:
        """The fraction of the masks of each scored sentence that follows the scores."""
        return 1.0 if self.policy.guided_by == "sequences" else rate_at(self.guided_fraction, when.progress)

    def guided_rows(self, ids: Sequence[int], when: When) -> Optional[Tensor]:
        """The sentences whose masks follow the scores, so that only they must be scored.

        Args:
            ids: B integers, of the sentences.
            when: the epoch, update and progress of this batch.
        Returns:
            b int64 on the host, their indices in the batch; None = all of them.
        """
        fraction = rate_at(self.guided_fraction, when.progress)
        if fraction == 0:
            return torch.empty(0, dtype=torch.int64)
        if fraction == 1 or self.policy.guided_by == "tokens":
            return None
        noise = uniform(self.seed, self.epoch_of_noise(when), torch.tensor(list(ids)), 1, GUIDED)[:, 0]
        return (noise < fraction).nonzero().flatten()

    def select(self, scores: Optional[Scores], maskable: Tensor, k: Tensor, draw: Draw,
               units: Optional[Tensor] = None, guided_fraction: float = 1.0) -> Selected:
        """Choose the positions.

        Args:
            scores: as for `__call__`.
            maskable: B x T bool.
            k: B int64 on the device, how many to select in each row.
            draw: the noise of this batch.
            units: B x T int64, what is masked together; None = each token alone.
            guided_fraction: of the k positions in each row, how many follow the scores, in [0, 1]; where only some rows
                were scored, all of theirs do.
        """
        if not self.traits["needs_scores"]:
            return Selected(self.choose(None, maskable, k, draw, units))
        if scores is None:
            return Selected(take(draw.noise(SELECTION), maskable, k, units))
        if scores.rows is not None:
            return self.select_in_rows(scores.rows, scores, maskable, k, draw, units)
        if guided_fraction == 1:
            return self.select_guided(scores, maskable, k, draw, units)
        # g = floor(f k + u), so that the expected fraction is exactly f
        g = (guided_fraction * k.double() + draw.row_noise(GUIDED)).floor().long()
        chosen = self.select_guided(scores, maskable, g, draw, units)
        guided = chosen.selected
        rest = take(draw.noise(SELECTION), maskable & ~guided, k - guided.sum(1), units)
        return chosen._replace(selected=guided | rest)

    def select_in_rows(self, rows: Tensor, scores: Scores, maskable: Tensor, k: Tensor, draw: Draw,
                       units: Optional[Tensor]) -> Selected:
        """As `select`, where only some rows are scored (b int64, their indices): the others are masked at random."""
        random = take(draw.noise(SELECTION), maskable, k.index_fill(0, rows, 0), units)
        of_rows = self.select_guided(scores, maskable[rows], k[rows], draw.rows(rows),
                                     None if units is None else units[rows])
        assert of_rows.scores is not None
        return Selected(random.index_copy(0, rows, of_rows.selected),
                        torch.zeros_like(maskable).index_copy(0, rows, of_rows.selected),
                        torch.zeros(maskable.shape, device=rows.device).index_copy(0, rows, of_rows.scores),
                        torch.zeros_like(k, dtype=torch.bool).index_fill(0, rows, True))

    def select_guided(self, scores: Scores, maskable: Tensor, k: Tensor, draw: Draw,
                      units: Optional[Tensor]) -> Selected:
        """The k positions of each row that the strategy chooses by the scores."""
        check(scores.values, maskable, f"scores (--mask-score {self.policy.score})")
        if scores.exact_at is None or self.policy.needs_exact_scores:
            values = scores.exact()
        else:
            values = self.refined(scores, maskable, lambda values: self.choose(values, maskable, k, draw, units))
        selected = self.choose(values, maskable, k, draw, units)
        return Selected(selected, selected, values)

    def choose(self, values: Optional[Tensor], maskable: Tensor, k: Tensor, draw: Draw,
               units: Optional[Tensor]) -> Tensor:
        """The strategy's choice: B x T bool. values: B x T fp32, or None for a strategy that needs no scores."""
        return select(self.policy.strategy, values, maskable, k, draw, units, **self.policy.options_of("strategy"))

    @staticmethod
    def refined(scores: Scores, maskable: Tensor, choose: Any) -> Tensor:
        """The scores with exact values near the cuts of `choose` (scores -> B x T bool): B x T fp32."""
        assert scores.exact_at is not None, "exact scores need no refinement"
        without_syncs = devices.syncs_are_expensive(scores.values.device)
        refine = refinement.refine_nearest if without_syncs else refinement.refine_near_cut
        return refine(scores.values, maskable, choose, scores.exact_at)

    def corrupt(self, tokens: Tensor, selected: Tensor, draw: Draw) -> Tuple[Tensor, Tensor]:
        """src_tokens and target where some positions (B x T bool) are masked: B x T int64 each."""
        src_tokens, target = corruption.corrupt(tokens, selected, self.vocabulary.mask, self.vocabulary.padding)
        if self.policy.leave_unmasked_prob or self.policy.random_token_prob:
            src_tokens = self.with_80_10_10(src_tokens, tokens, selected, draw)
        return src_tokens, target

    def with_80_10_10(self, src_tokens: Tensor, tokens: Tensor, selected: Tensor, draw: Draw) -> Tensor:
        """`src_tokens` with BERT's 80/10/10 instead of 100 % <mask>: B x T int64."""
        ordinary = ordinary_on(self.vocabulary, tokens.device)
        replacement = corruption.random_tokens(draw.noise(REPLACEMENT), ordinary)
        return corruption.apply_80_10_10(src_tokens, tokens, selected, self.policy.leave_unmasked_prob,
                                         self.policy.random_token_prob, draw.noise(CORRUPTION), replacement)
