"""How uncertain is a model about each token? One score a file; `registry` says what a score is.

registry        SCORES, and what a source returns for the tokens of a batch
entropy         of the prediction, in nats
triton_entropy  the same on a GPU, without storing logits
surprisal       of the token itself, in nats
margin          between the two most probable tokens, negated
learner         scores that learn from the training's own answers, and what these are
accuracy        how often the model was wrong about tokens of this type
predicted_loss  what the model would lose, as a small head predicts it
"""

from . import entropy, surprisal, margin, accuracy, predicted_loss  # noqa: F401  # isort: skip  (the order of lists)
from .learner import Answers, Learner
from .registry import SCORES, Scores, is_learned, projected

__all__ = ["SCORES", "Answers", "Learner", "Scores", "is_learned", "projected"]
