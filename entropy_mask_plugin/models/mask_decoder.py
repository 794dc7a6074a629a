"""Mask More and Mask Later (Liao et al. 2022): masks are kept out of the encoder and come in with a small decoder.

    encoder    the visible tokens alone, at their original positions                              B x S x C
    decoder    all T positions: what the encoder made of the visible ones, one learned vector     B x T x C
               at the others, and positions of its own

Visible is whatever is neither <mask> nor padding: with BERT's 80/10/10, a token that was kept or replaced at random
stays in the encoder, and is predicted nevertheless. Fine-tuning uses the encoder alone.

Shapes: B sentences, T positions, S the most visible ones in a sentence, C width, K chosen positions.
"""

import torch
import torch.nn as nn

from .layers import layer_norm
from .positions import Positions

KINDS = ("self", "cross")


class MaskDecoder(nn.Module):
    """
    Args:
        cfg: with mask_decoder_layers >= 1 and mask_decoder_kind: "self" = self-attention over all positions, "cross" =
            and attention to the encoder's output in every layer.
        dictionary: a fairseq Dictionary with <mask>.
        new_layer: makes a layer like the encoder's, see `layers.bert_layer`.
    """

    def __init__(self, cfg, dictionary, new_layer):
        super().__init__()
        self.padding_idx, self.mask_idx = dictionary.pad(), dictionary.index("<mask>")
        self.embed_mask = nn.Embedding(1, cfg.encoder_embed_dim)  # not the word <mask>: the encoder never sees that one
        self.embed_positions = nn.Embedding(cfg.max_positions, cfg.encoder_embed_dim)
        crosses = cfg.mask_decoder_kind == "cross"
        self.layers = nn.ModuleList(new_layer(cfg, crosses=crosses) for _ in range(cfg.mask_decoder_layers))
        self.layer_norm = layer_norm(cfg) if self.layers[0].normalize_before else nn.Identity()

    def forward(self, encoder, src_tokens, positions=None, has_padding=None):
        """
        Args:
            encoder: a `BertEncoder`.
            src_tokens: B x T int64.
            positions: the `Positions` whose features are wanted; None = all.
            has_padding: whether there is any; None = ask the device.
        Returns:
            B x T x C, or K x C at the positions.
        """
        real = src_tokens.ne(self.padding_idx)
        visible = Positions(real & src_tokens.ne(self.mask_idx))
        seen, attend_to_seen = self.encode_visible(encoder, src_tokens, visible)
        x = self.embed_mask.weight.to(seen.dtype).expand(src_tokens.numel(), -1)
        x = x.index_copy(0, visible.flat, visible.of_slots(seen)).view(*src_tokens.shape, -1)
        x = x + self.embed_positions.weight[: src_tokens.size(1)]
        has_padding = (~real).any() if has_padding is None else has_padding
        attend = real[:, None, None, :] if has_padding else None
        for layer in self.layers[:-1]:
            x = layer(x, attend, memory=(seen, attend_to_seen))
        return self.layer_norm(self.layers[-1](x, attend, positions, (seen, attend_to_seen)))

    def encode_visible(self, encoder, src_tokens, visible):
        """The encoder's features, B x S x C, and where there are any, B x 1 x 1 x S; None = everywhere."""
        tokens, at = visible.slotted(src_tokens), visible.in_slots % src_tokens.size(1)
        if visible.filled is None:
            return encoder.run_layers(encoder.embed(tokens, at), None), None
        filled = torch.arange(visible.slots, device=tokens.device) < visible.mask.sum(1, keepdim=True)
        tokens = tokens.masked_fill(~filled, self.padding_idx)
        # Where nothing is visible, something must be looked at: a softmax over nothing is nan.
        attend = filled.index_fill(1, filled.new_zeros(1, dtype=torch.int64), True)[:, None, None, :]
        return encoder.run_layers(encoder.embed(tokens, at), attend), attend
