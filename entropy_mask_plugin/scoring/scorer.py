"""What a model says of the clean tokens of a batch, and how exactly.

Shapes: B sentences, T positions, C width, V vocabulary.
"""

from typing import Any, Mapping, Optional, Tuple

import torch
from torch import Tensor

from ..masking import devices
from ..masking.scores import SCORES, Scores, projected
from ..masking.scores.entropy import bf16_pays
from .precision import autocast


class Scorer:
    """
    Args:
        score: a name in SCORES.
        precision: --precision, of the layers; entropy_precision: --entropy-precision, of the whole pass.
        options: {name: value} of the score.
    Raises:
        ValueError: there is no such score.
    """

    def __init__(self, score: str, precision: str = "fp32", entropy_precision: Optional[str] = None,
                 options: Optional[Mapping[str, Any]] = None):
        self.score, self.options = score, SCORES[score].chosen(options or {})
        self.layers_in = entropy_precision or precision
        self.product = torch.bfloat16 if entropy_precision == "bf16" else torch.float32

    def __call__(self, model: torch.nn.Module, clean: Mapping[str, Any]) -> Scores:
        """Scores of a bf16 product, with the way to exact ones, where that is cheaper and safe; else exact ones.

        Args:
            model: one of this plug-in's, or a teacher with `lm_hidden` and `output_projection`; in eval mode.
            clean: src_tokens, B x T int64, and has_padding.
        """
        hidden, weight, bias = self.projection(model, clean)
        tokens = clean["src_tokens"] if SCORES[self.score].traits["needs_tokens"] else None
        # Without syncs, refinement may miss a position where scores hardly differ. Layers in bf16 do that anyway.
        is_unsafe = devices.syncs_are_expensive(hidden.device) and self.layers_in == "fp32"
        if self.product is torch.bfloat16 or is_unsafe or not bf16_pays(hidden.device):
            return Scores(self.projected(hidden, weight, bias, tokens, self.product))
        return Scores(self.projected(hidden, weight, bias, tokens, torch.bfloat16),
                      lambda at: self.projected(hidden[at], weight, bias, None if tokens is None else tokens[at],
                                                torch.float32))

    def exact(self, model: torch.nn.Module, clean: Mapping[str, Any]) -> Tensor:
        """B x T fp32: as exact as --entropy-precision says, everywhere."""
        return self.projected(*self.projection(model, clean), clean["src_tokens"], self.product)

    def projection(self, model: torch.nn.Module, clean: Mapping[str, Any]) -> Tuple[Tensor, Tensor, Tensor]:
        """The hidden states B x T x C that are projected to the vocabulary, weight V x C and bias V."""
        tokens = clean["src_tokens"]
        with torch.no_grad(), autocast(tokens.device, self.layers_in):
            hidden = model.lm_hidden(tokens, has_padding=clean["has_padding"])
        return hidden, *model.output_projection()

    def projected(self, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Optional[Tensor],
                  dtype: torch.dtype) -> Tensor:
        return projected(self.score, hidden, weight, bias, tokens, dtype, **self.options)
