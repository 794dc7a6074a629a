"""How uncertain is a model about each token? A score is a function of the logits at a position.

    @SCORES.add("name", unit="nats", version=1)
    def name(logits, tokens):

        logits      R x V, fp32, of R positions: never of a whole batch at once
        tokens      R int64, the clean tokens there
        returns     R fp32, finite: large = uncertain

A score may also learn from the training's own answers: then it is a class, see `learner`.

needs: what it is computed from: "logits", or for a score that learns "features" or "history".
unit: for logs and plots.
needs_tokens: whether it depends on the tokens; if not, they may be None.
version: increase it when the definition changes: entropy caches of the old version are then not read.
projected: (hidden, weight, bias, dtype) -> the same for all positions of a batch, faster; None = from logits in chunks.

Shapes: B sentences, T positions, R rows (positions), V vocabulary, C width.
"""

from types import MappingProxyType
from typing import Any, Callable, Mapping, NamedTuple, Optional

import torch
from torch import Tensor

from ..registry import Registry

SCORES = Registry("--mask-score", unit="", version=1, needs="logits", needs_tokens=True, projected=None)
CHUNK_ROWS = 256  # of a matrix product, which gets slow below 64


def is_learned(score: str) -> bool:
    """Whether a score learns from the training's own answers; False for one that is not registered here."""
    return score in SCORES and SCORES[score].traits["needs"] != "logits"


class Scores(NamedTuple):
    """What a source returns for the tokens of a batch.

    values: B x T fp32, finite, large = uncertain; exact_at: an index into B x T -> the exact values there, None where
    `values` are exact.
    """

    values: Tensor
    exact_at: Optional[Callable[[Any], Tensor]] = None

    def exact(self) -> Tensor:
        """B x T fp32: exact everywhere."""
        return self.values if self.exact_at is None else self.exact_at(slice(None))


@torch.no_grad()
def projected(score: str, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Optional[Tensor],
              dtype: torch.dtype = torch.float32, options: Mapping[str, Any] = MappingProxyType({})) -> Tensor:
    """A score of softmax(hidden @ weight.T + bias), never with the logits of more than CHUNK_ROWS positions in memory.

    Args:
        score: a name in SCORES.
        hidden: ... x C, input of the output projection.
        weight: V x C.
        bias: V.
        tokens: ... int64, clean; may be None for a score that does not need them.
        dtype: of the matrix product's operands; fp32 is the reference, see `refinement` for bf16.
        options: of the score.
    Returns:
        ... fp32, in the unit of the score.
    Raises:
        ValueError: there is no such score, or it is not one of logits.
    """
    entry = SCORES[score]
    if is_learned(score):
        raise ValueError(f"--mask-score {score}: a score that learns found, expected one of logits")
    if entry.traits["projected"] is not None:
        return entry.traits["projected"](hidden, weight, bias, dtype, **options)
    rows, weight, bias = hidden.reshape(-1, hidden.size(-1)).to(dtype), weight.to(dtype), bias.float()  # N x C
    chunks = rows.split(CHUNK_ROWS)
    tokens_of = [None] * len(chunks) if tokens is None else tokens.reshape(-1).split(CHUNK_ROWS)
    with torch.autocast(rows.device.type, enabled=False):  # the caller's autocast would round the logits to bf16
        values = [entry.fn((chunk @ weight.t()).float() + bias, of_chunk, **options)
                  for chunk, of_chunk in zip(chunks, tokens_of)]
    for chunk, scored in zip(chunks, values):
        if not isinstance(scored, Tensor) or scored.shape != chunk.shape[:1]:
            kind = f"shape {tuple(scored.shape)}" if isinstance(scored, Tensor) else type(scored).__name__
            raise ValueError(f"--mask-score {score}: {kind} found, expected shape ({len(chunk)},)")
    return torch.cat(values).view(hidden.shape[:-1])
