"""How much would the model lose here? A small head predicts it from the features of the clean text. (As Wang et al.
2023, "Hard Patches Mining for Masked Image Modeling", do for images.)

Shapes: B sentences, T positions, C width, K masked positions, N = C^2 + 2C weights of the head.
"""

from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .learner import Answers, Learner
from .registry import SCORES

SEED = 20231  # of the initial weights: the same on all ranks and in all runs
SHIFTS = 8  # each masked position is compared with so many that follow it
LEARNING_RATE, BETAS, EPSILON = 1e-3, (0.9, 0.999), 1e-8  # of Adam


def predicted_loss(features: Tensor, weights: Tensor) -> Tensor:
    """The head: linear, GELU, linear. The second layer has no bias: a ranking does not depend on it.

    Args:
        features: ... x C, any float type.
        weights: N fp32: C x C and C of the first layer, C of the second.
    Returns:
        ... fp32; only its order has a meaning.
    """
    width = features.size(-1)
    matrix, bias, row = weights.split([width * width, width, width])
    hidden = F.gelu(F.linear(features.float(), matrix.view(width, width), bias))  # ... x C
    return hidden @ row


def ranking_loss(predicted: Tensor, losses: Tensor, rows: Tensor, shifts: int = SHIFTS) -> Tensor:
    """Sum of the logistic losses of predicted[i] - predicted[j] as a classifier of losses[i] > losses[j], over the
    pairs (i, i + 1), ..., (i, i + shifts) within a sentence.

    Args:
        predicted: K fp32.
        losses: K fp32.
        rows: K int64 of at least 0, the sentence of each.
        shifts: the most that i and j are apart.
    Returns:
        [the sum, the number of pairs], fp32.
    """
    def pairs(x, outside):  # K x 1 and K x shifts; beyond the end: `outside`
        windows = F.pad(x, (0, shifts + 1), value=outside).unfold(0, shifts + 1, 1)[: len(x)]
        return windows[:, :1], windows[:, 1:]

    (row, other_row), (loss, other_loss), (one, other) = pairs(rows, -1), pairs(losses, 0), pairs(predicted, 0)
    is_pair = row.eq(other_row).float()
    logistic = F.binary_cross_entropy_with_logits(one - other, loss.gt(other_loss).float(), reduction="none")
    return torch.stack([(logistic * is_pair).sum(), is_pair.sum()])


@SCORES.add("predicted-loss", needs="features", needs_tokens=False, version=1)
class PredictedLoss(Learner):
    """What the model would lose there, as a small head predicts it.

    The head learns at the masked positions of each step which of two positions lost more; it reads the features that
    the step has computed, and the model does not learn from it. It is applied to the clean text, where the features
    cost a pass through the layers.
    """

    weights: Tensor  # N fp32
    gradient: Tensor  # N + 1 fp32, of this update, this rank; the last: number of pairs
    mean: Tensor  # N fp32, of Adam's gradients
    square: Tensor  # N fp32, of their squares
    steps: Tensor  # 0-dim fp32

    def __init__(self, vocabulary_size: int, width: int):
        super().__init__(vocabulary_size, width)
        weights = initial_weights(width)
        self.register_buffer("weights", weights)
        self.register_buffer("gradient", torch.zeros(len(weights) + 1), persistent=False)
        self.register_buffer("mean", torch.zeros_like(weights))
        self.register_buffer("square", torch.zeros_like(weights))
        self.register_buffer("steps", torch.zeros(()))

    def observe(self, answers: Answers) -> None:
        """Add the gradient of the ranking loss of a batch."""
        assert answers.features is not None, "the task refuses archs without features"
        with torch.enable_grad():
            weights = self.weights.detach().requires_grad_()
            loss, pairs = ranking_loss(predicted_loss(answers.features, weights), answers.losses, answers.rows)
            (gradient,) = torch.autograd.grad(loss, weights)
        self.gradient += torch.cat([gradient, pairs.detach()[None]])

    def update(self, update_num: int, all_reduce: Callable[[Tensor], None]) -> None:
        """A step of Adam on the mean loss of all pairs of all ranks."""
        all_reduce(self.gradient)
        gradient = self.gradient[:-1] / self.gradient[-1].clamp(min=1)
        self.gradient.zero_()
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.lerp_(gradient.square(), 1 - BETAS[1])
        mean, square = self.mean / (1 - BETAS[0] ** self.steps), self.square / (1 - BETAS[1] ** self.steps)
        self.weights -= LEARNING_RATE * mean / (square.sqrt() + EPSILON)

    def scores(self, tokens: Tensor, features: Optional[Tensor], noise: Tensor) -> Tensor:
        """The prediction of the head, without unit."""
        assert features is not None, "needs='features'"
        return predicted_loss(features, self.weights)


def initial_weights(width: int) -> Tensor:
    """N fp32, uniform in ±1 / sqrt(C) as those of torch's linear layers, from a generator of their own."""
    generator = torch.Generator().manual_seed(SEED)
    return (2 * torch.rand(width * width + 2 * width, generator=generator) - 1) * max(width, 1) ** -0.5
