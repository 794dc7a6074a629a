"""Mask More and Mask Later (3ML, Liao et al. 2022): masks bypass the encoder and enter at a small decoder.

    encoder    the visible tokens alone, at their original positions                              B x S x C
    decoder    all T positions: the encoder's output at the visible ones, one learned vector      B x T x C
               at the others, and the decoder's own position embeddings

A token is visible if it is neither <mask> nor padding: with BERT's 80/10/10, a token that was kept or replaced at
random is an input of the encoder, and is predicted too. Fine-tuning uses the encoder alone.

Shapes: B sentences, T positions, S the most visible ones in a sentence, C width, K selected positions.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Tuple

import torch
import torch.nn as nn
from fairseq.data import Dictionary
from torch import Tensor

from .layers import layer_norm
from .positions import SelectedPositions

if TYPE_CHECKING:
    from .bert import BertEncoder

KINDS = ("self", "cross")


class MaskDecoder(nn.Module):
    """The decoder of a 3ML model.

    Args:
        cfg: with mask_decoder_layers >= 1 and mask_decoder_kind: "self" = self-attention over all positions, "cross" =
            also attention to the encoder's output, in every layer.
        dictionary: a fairseq Dictionary with <mask>.
        new_layer: makes a layer like the encoder's, see `layers.bert_layer`.
    """

    def __init__(self, cfg: Any, dictionary: Dictionary, new_layer: Callable[..., nn.Module]):
        super().__init__()
        self.padding_idx, self.mask_idx = dictionary.pad(), dictionary.index("<mask>")
        self.embed_mask = nn.Embedding(1, cfg.encoder_embed_dim)  # not that of <mask>, which the encoder never sees
        self.embed_positions = nn.Embedding(cfg.max_positions, cfg.encoder_embed_dim)
        crosses = cfg.mask_decoder_kind == "cross"
        self.layers: Any = nn.ModuleList(new_layer(cfg, crosses=crosses) for _ in range(cfg.mask_decoder_layers))
        self.layer_norm = layer_norm(cfg) if self.layers[0].normalize_before else nn.Identity()

    def forward(self, encoder: "BertEncoder", src_tokens: Tensor, positions: Optional[SelectedPositions] = None,
                has_padding: Optional[bool] = None) -> Tensor:
        """Encode the visible tokens, then decode all positions.

        Args:
            encoder: the model's.
            src_tokens: B x T int64.
            positions: where features are computed; None = at all positions.
            has_padding: whether the batch has padding; None = ask the device.
        Returns:
            B x T x C, or K x C at the positions.
        """
        real = src_tokens.ne(self.padding_idx)  # B x T
        visible = SelectedPositions(real & src_tokens.ne(self.mask_idx))
        seen, attend_to_seen = self.encode_visible(encoder, src_tokens, visible)  # B x S x C, B x 1 x 1 x S
        x = self.embed_mask.weight.to(seen.dtype).expand(src_tokens.numel(), -1)  # BT x C
        x = x.index_copy(0, visible.indices, visible.unpad(seen)).view(*src_tokens.shape, -1)  # B x T x C
        x = x + self.embed_positions.weight[: src_tokens.size(1)]
        is_padded = (~real).any() if has_padding is None else has_padding
        attend = real[:, None, None, :] if is_padded else None  # B x 1 x 1 x T
        for layer in self.layers[:-1]:
            x = layer(x, attend, memory=(seen, attend_to_seen))
        return self.layer_norm(self.layers[-1](x, attend, positions, (seen, attend_to_seen)))

    def encode_visible(
        self, encoder: "BertEncoder", src_tokens: Tensor, visible: SelectedPositions
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """The encoder's features, B x S x C, and where they are not padding, B x 1 x 1 x S bool; None = nowhere."""
        tokens = visible.pad(src_tokens)  # B x S
        at = visible.padded_indices % src_tokens.size(1)  # B x S, original positions
        if visible.unpadded is None:
            return encoder.run_layers(encoder.embed(tokens, at), None), None
        real = torch.arange(visible.max_per_row, device=tokens.device) < visible.mask.sum(1, keepdim=True)  # B x S
        tokens = tokens.masked_fill(~real, self.padding_idx)
        # A sentence without visible tokens attends to its first padding: a softmax over nothing is nan.
        attend = real.index_fill(1, real.new_zeros(1, dtype=torch.int64), True)[:, None, None, :]  # B x 1 x 1 x S
        return encoder.run_layers(encoder.embed(tokens, at), attend), attend
