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

import itertools
from types import MappingProxyType
from typing import Any, Callable, Mapping, NamedTuple, Optional

import torch
from torch import Tensor

from ..registry import Registry

SCORES = Registry("--mask-score", unit="", version=1, needs="logits", needs_tokens=True, projected=None)
CHUNK_ROWS = 256  # of a matrix product, which gets slow below 64
CACHED_ROWS = 16  # rows whose fp32 logits stay in the CPU's cache from one operation to the next; divides CHUNK_ROWS
LARGEST = 1e30  # stands for an infinite score: sums over a unit and differences stay finite


def is_learned(score: str) -> bool:
    """Whether a score learns from the training's own answers; False for one that is not registered here."""
    return score in SCORES and SCORES[score].traits["needs"] != "logits"


class Scores(NamedTuple):
    """What a source returns for the tokens of a batch.

    values: B x T fp32, finite, large = uncertain; exact_at: an index into B x T -> the exact values there, None where
    `values` are exact; rows: B int64, the sentences of the batch that were scored, None where all were.
    """

    values: Tensor
    exact_at: Optional[Callable[[Any], Tensor]] = None
    rows: Optional[Tensor] = None

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
    together = rows_together(rows.device)
    tokens_of = itertools.repeat(None) if tokens is None else tokens.reshape(-1).split(together)
    with torch.autocast(rows.device.type, enabled=False):  # the caller's autocast would round the logits to bf16
        parts = (part for chunk in rows.split(CHUNK_ROWS)
                 for part in (chunk @ weight.t()).float().add_(bias).split(together))
        values = [checked(entry.fn(part, of_part, **options), len(part), score)
                  for part, of_part in zip(parts, tokens_of)]
    return torch.cat(values).view(hidden.shape[:-1])


def rows_together(device: torch.device) -> int:
    """Rows whose logits a score gets at once; it divides CHUNK_ROWS."""
    return CACHED_ROWS if device.type == "cpu" else CHUNK_ROWS


def checked(values: Any, rows: int, score: str) -> Tensor:
    """What a score returned for so many rows.

    Raises:
        ValueError: it is not one value a row.
    """
    if not isinstance(values, Tensor) or values.shape != (rows,):
        kind = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"--mask-score {score}: {kind} found, expected shape ({rows},)")
    return values
