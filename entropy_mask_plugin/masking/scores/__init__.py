"""How uncertain is a model about each token? One score a file; `registry` says what a score is.

registry        SCORES, and what a source returns for the tokens of a batch
entropy         of the prediction, in nats
triton_entropy  the same on a GPU, without storing logits
surprisal       of the token itself, in nats
margin          between the two most probable tokens, negated
"""

from . import entropy, surprisal, margin  # noqa: F401  # isort: skip  (the order of lists)
from .registry import SCORES, Scores, projected

__all__ = ["SCORES", "Scores", "projected"]
