"""Classification heads for fairseq's `sentence_prediction`: built on demand, restored from checkpoints.

Shapes: B sentences, T positions, C width, N classes.
"""

import logging
from collections.abc import Callable
from typing import Any, Dict, Optional

import torch.nn as nn
from torch import Tensor

logger = logging.getLogger(__name__)


class ClassificationHead(nn.Module):
    """dropout, dense, tanh, dropout, projection on the first token (BERT's pooler and classifier)."""

    def __init__(self, embed_dim: int, inner_dim: int, num_classes: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(embed_dim, inner_dim)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(inner_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """B x T x C -> B x N."""
        x = self.dropout(features[:, 0])  # B x C
        return self.out_proj(self.dropout(self.dense(x).tanh()))


class ClassificationHeads:
    """Mix-in for a model with `classification_heads` (ModuleDict), `cfg` and `initialize`."""

    cfg: Any
    classification_heads: nn.ModuleDict
    initialize: Callable[[nn.Module], None]

    def register_classification_head(
        self, name: str, num_classes: int, inner_dim: Optional[int] = None, **unused: Any
    ) -> None:
        """Add a head with random weights, or replace the one of that name.

        Args:
            name: the key in `classification_heads`.
            num_classes: N.
            inner_dim: width of the dense layer; None = C.
            **unused: ignored; part of fairseq's interface.
        """
        width = self.cfg.encoder_embed_dim
        head = ClassificationHead(width, inner_dim or width, num_classes, self.cfg.pooler_dropout)
        self.classification_heads[name] = head.apply(self.initialize)

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """Make the heads in a state dict match the model's, in place: fine-tuning starts from checkpoints without its
        head, and a fine-tuned checkpoint may be pretrained further. name: prefix of the model's keys."""
        super().upgrade_state_dict_named(state_dict, name)  # type: ignore[misc]  # fairseq's model
        prefix = f"{name}.classification_heads." if name else "classification_heads."
        for head in {key[len(prefix):].split(".")[0] for key in state_dict if key.startswith(prefix)}:
            self._match_head(state_dict, prefix, head)
        for key, value in self.classification_heads.state_dict().items():
            state_dict.setdefault(prefix + key, value)

    def _match_head(self, state_dict: Dict[str, Tensor], prefix: str, head: str) -> None:
        inner_dim = state_dict[f"{prefix}{head}.dense.weight"].size(0)
        num_classes = state_dict[f"{prefix}{head}.out_proj.weight"].size(0)
        if self.cfg.load_checkpoint_heads and head not in self.classification_heads:
            self.register_classification_head(head, num_classes, inner_dim)
        if not self._has_head(head, num_classes, inner_dim):
            logger.warning(f"classification head '{head}' ({num_classes} classes) of the checkpoint is not loaded: "
                           "the model has no head of that name and size")
            for key in [key for key in state_dict if key.startswith(f"{prefix}{head}.")]:
                del state_dict[key]

    def _has_head(self, head: str, num_classes: int, inner_dim: int) -> bool:
        if head not in self.classification_heads:
            return False
        ours: Any = self.classification_heads[head]
        return (ours.out_proj.out_features, ours.dense.out_features) == (num_classes, inner_dim)
