"""The scores of a model's predictions of the tokens of a batch, visible or each hidden in one of several passes, in the
precision that is asked for; or those that a learner has for them.

Shapes: B sentences, T positions, C width, V vocabulary.
"""

import copy
from typing import Any, Mapping, Optional, Tuple

import torch
from torch import Tensor

from ..masking import devices
from ..masking.folds import folds
from ..masking.scores import SCORES, Learner, Scores, projected
from ..masking.scores.entropy import bf16_pays
from .precision import autocast


class Scorer:
    """Scores batches with any model of this plug-in.

    Args:
        score: a name in SCORES.
        precision: --precision, of the layers: "fp32" or "bf16".
        entropy_precision: --entropy-precision, of the whole pass; None = the layers as `precision` says, the projection
            refined near the selection cut.
        options: {name: value}, the options of the score among them.
        is_refined: whether approximate scores will be made exact near the selection cut; if not, all are exact.
        n_folds: --entropy-folds: 1 = the model sees every token; more = as many passes, each token scored in the one
            that hides it.
        mask_idx: id of the mask token, which hides the others; needed for more than one fold.
        learner: of a score that learns; None = the score is one of logits.
    Raises:
        ValueError: there is no such score.
    """

    def __init__(self, score: str, precision: str = "fp32", entropy_precision: Optional[str] = None,
                 options: Optional[Mapping[str, Any]] = None, is_refined: bool = True, n_folds: int = 1,
                 mask_idx: int = -1, learner: Optional[Learner] = None):
        self.n_folds, self.mask_idx = n_folds, mask_idx
        self.score, self.options, self.is_refined = score, SCORES[score].chosen(options or {}), is_refined
        self.layers_in = entropy_precision or precision
        self.product = torch.bfloat16 if entropy_precision == "bf16" else torch.float32
        self.learner, self.needs = learner, SCORES[score].traits["needs"]

    def __call__(self, model: Any, sample: Mapping[str, Any]) -> Scores:
        """Scores by a bf16 product, with `exact_at`, where that is cheaper and safe; else exact scores.

        Args:
            model: one of this plug-in's, or a teacher with `lm_hidden` and `output_projection`; in eval mode.
            sample: clean; net_input with src_tokens, B x T int64, and has_padding; for more than one fold also id (B),
                maskable (B x T bool) and n_maskable (of each row, on the host).
        """
        hidden, weight, bias = self.projection(model, sample)
        tokens = sample["net_input"]["src_tokens"] if SCORES[self.score].traits["needs_tokens"] else None
        # Without syncs, refinement may miss a position where scores are nearly equal, as bf16 layers do in any case.
        is_unsafe = devices.syncs_are_expensive(hidden.device) and self.layers_in == "fp32"
        if self.product is torch.bfloat16 or is_unsafe or not self.is_refined or not bf16_pays(hidden.device):
            return Scores(self.projected(hidden, weight, bias, tokens, self.product))
        return Scores(self.projected(hidden, weight, bias, tokens, torch.bfloat16),
                      lambda at: self.projected(hidden[at], weight, bias, None if tokens is None else tokens[at],
                                                torch.float32))

    def exact(self, model: Any, sample: Mapping[str, Any]) -> Tensor:
        """Scores at all positions without refinement, as exact as --entropy-precision says: B x T fp32."""
        return self.projected(*self.projection(model, sample), sample["net_input"]["src_tokens"], self.product)

    def of_visible_tokens(self) -> "Scorer":
        """The same scorer for a model that sees every token."""
        scorer = copy.copy(self)
        scorer.n_folds = 1
        return scorer

    @torch.no_grad()
    def learned(self, model: Any, clean: Mapping[str, Any], noise: Tensor) -> Scores:
        """The scores of the learner. model: as for `__call__`, used for its features only, if at all; clean: the
        net_input of a sample; noise: B x T fp32 in [0, 1)."""
        assert self.learner is not None, "a score of logits"
        tokens, features = clean["src_tokens"], None
        if self.needs == "features":
            with autocast(tokens.device, self.layers_in):
                features = model.decode(tokens, has_padding=clean["has_padding"])  # B x T x C
        return Scores(self.learner.scores(tokens, features, noise))

    def projection(self, model: Any, sample: Mapping[str, Any]) -> Tuple[Tensor, Tensor, Tensor]:
        """The input of the output projection, B x T x C, its weight V x C and its bias V."""
        with torch.no_grad(), autocast(sample["net_input"]["src_tokens"].device, self.layers_in):
            hidden = self.hidden_states(model, sample)
        return hidden, *model.output_projection()

    def hidden_states(self, model: Any, sample: Mapping[str, Any]) -> Tensor:
        """B x T x C; with folds, those of each token from the pass in which it is masked, and of tokens that are never
        masked from the first pass."""
        tokens, has_padding = sample["net_input"]["src_tokens"], sample["net_input"]["has_padding"]
        if self.n_folds == 1:
            return model.lm_hidden(tokens, has_padding=has_padding)
        fold_of = folds(sample["id"], sample["maskable"], self.n_folds)  # B x T
        states = torch.empty(0)
        for fold in range(max(1, min(self.n_folds, max(sample["n_maskable"])))):  # the others are empty
            is_masked = fold_of == fold
            of_pass = model.lm_hidden(tokens.masked_fill(is_masked, self.mask_idx), has_padding=has_padding)
            states = torch.where(is_masked[..., None], of_pass, states) if fold else of_pass
        return states

    def projected(self, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Optional[Tensor],
                  dtype: torch.dtype) -> Tensor:
        """As `masking.scores.projected`, of this score: ... x C -> ... fp32."""
        return projected(self.score, hidden, weight, bias, tokens, dtype, self.options)
