"""The scores of a model's predictions on the clean tokens of a batch, in the precision that is asked for; or those that
a learner has for them.

Shapes: B sentences, T positions, C width, V vocabulary.
"""

from typing import Any, Mapping, Optional, Tuple

import torch
from torch import Tensor

from ..masking import devices
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
        learner: of a score that learns; None = the score is one of logits.
    Raises:
        ValueError: there is no such score.
    """

    def __init__(self, score: str, precision: str = "fp32", entropy_precision: Optional[str] = None,
                 options: Optional[Mapping[str, Any]] = None, is_refined: bool = True,
                 learner: Optional[Learner] = None):
        self.score, self.options, self.is_refined = score, SCORES[score].chosen(options or {}), is_refined
        self.layers_in = entropy_precision or precision
        self.product = torch.bfloat16 if entropy_precision == "bf16" else torch.float32
        self.learner, self.needs = learner, SCORES[score].traits["needs"]

    def __call__(self, model: Any, clean: Mapping[str, Any]) -> Scores:
        """Scores by a bf16 product, with `exact_at`, where that is cheaper and safe; else exact scores.

        Args:
            model: one of this plug-in's, or a teacher with `lm_hidden` and `output_projection`; in eval mode.
            clean: src_tokens, B x T int64, and has_padding.
        """
        hidden, weight, bias = self.projection(model, clean)
        tokens = clean["src_tokens"] if SCORES[self.score].traits["needs_tokens"] else None
        # Without syncs, refinement may miss a position where scores are nearly equal, as bf16 layers do in any case.
        is_unsafe = devices.syncs_are_expensive(hidden.device) and self.layers_in == "fp32"
        if self.product is torch.bfloat16 or is_unsafe or not self.is_refined or not bf16_pays(hidden.device):
            return Scores(self.projected(hidden, weight, bias, tokens, self.product))
        return Scores(self.projected(hidden, weight, bias, tokens, torch.bfloat16),
                      lambda at: self.projected(hidden[at], weight, bias, None if tokens is None else tokens[at],
                                                torch.float32))

    def exact(self, model: Any, clean: Mapping[str, Any]) -> Tensor:
        """Scores at all positions without refinement, as exact as --entropy-precision says: B x T fp32."""
        return self.projected(*self.projection(model, clean), clean["src_tokens"], self.product)

    @torch.no_grad()
    def learned(self, model: Any, clean: Mapping[str, Any], noise: Tensor) -> Scores:
        """The scores of the learner. model, clean: as for `__call__`; the model is used for its features only, if at
        all. noise: B x T fp32 in [0, 1)."""
        assert self.learner is not None, "a score of logits"
        tokens, features = clean["src_tokens"], None
        if self.needs == "features":
            with autocast(tokens.device, self.layers_in):
                features = model.decode(tokens, has_padding=clean["has_padding"])  # B x T x C
        return Scores(self.learner.scores(tokens, features, noise))

    def projection(self, model: Any, clean: Mapping[str, Any]) -> Tuple[Tensor, Tensor, Tensor]:
        """The input of the output projection, B x T x C, its weight V x C and its bias V."""
        tokens = clean["src_tokens"]
        with torch.no_grad(), autocast(tokens.device, self.layers_in):
            hidden = model.lm_hidden(tokens, has_padding=clean["has_padding"])
        return hidden, *model.output_projection()

    def projected(self, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Optional[Tensor],
                  dtype: torch.dtype) -> Tensor:
        """As `masking.scores.projected`, of this score: ... x C -> ... fp32."""
        return projected(self.score, hidden, weight, bias, tokens, dtype, self.options)
