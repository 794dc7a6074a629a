"""How often is the model wrong about a token of this type? (Adaptive masking of Edman and Fraser, BabyLM 2025.)

Shapes: B sentences, T positions, V vocabulary, K masked positions.
"""

from typing import Callable, Optional

import torch
from torch import Tensor

from ..registry import Option
from .learner import Answers, Learner
from .registry import SCORES

NOISE = 1e-3  # in nats; without it, tokens of one type would be masked from the left

OPTIONS = {
    "accuracy_window": Option(200, "updates after which --mask-score accuracy updates the error rates of token types",
                              lambda value: value >= 1, "1 or more"),
    "accuracy_mix": Option(0.8, "weight of the latest window in the error rates of --mask-score accuracy, in (0, 1]",
                           lambda value: 0 < value <= 1, "a weight in (0, 1]"),
    "accuracy_floor": Option(0.005, "smallest error rate of --mask-score accuracy, in (0, 1]",
                             lambda value: 0 < value <= 1, "a rate in (0, 1]"),
}


@SCORES.add("accuracy", needs="history", needs_tokens=True, unit="nats", version=1, options=OPTIONS)
class Accuracy(Learner):
    """How often the model was wrong about tokens of this type.

    At the end of each window of updates, for each type that was masked `seen` times in it,

        error = 1 - (correct + 1/2) / (seen + 1)        rate <- max(floor, (1 - mix) rate + mix error)

    A type that was not seen has the error 1/2, as in the paper: without evidence, its rate goes to 1/2. Rates begin at
    1, so that the first window is masked at random. The score is ln rate: `--mask-strategy gumbel` masks in proportion
    to the rates. Special tokens are never masked, and therefore never counted.
    """

    seen_and_correct: Tensor  # 2 x V int64, of the window, all ranks
    latest: Tensor  # the same of this update, this rank
    rates: Tensor  # V fp32

    def __init__(self, vocabulary_size: int, width: int, accuracy_window: int, accuracy_mix: float,
                 accuracy_floor: float):
        super().__init__(vocabulary_size, width)
        self.window, self.mix, self.floor = accuracy_window, accuracy_mix, accuracy_floor
        counts = torch.zeros(2, vocabulary_size, dtype=torch.int64)
        self.register_buffer("seen_and_correct", counts)
        self.register_buffer("latest", counts.clone(), persistent=False)
        self.register_buffer("rates", torch.ones(vocabulary_size))

    def observe(self, answers: Answers) -> None:
        """Count the answers."""
        correct = answers.correct.long()
        self.latest.index_add_(1, answers.target, torch.stack([torch.ones_like(correct), correct]))

    def update(self, update_num: int, all_reduce: Callable[[Tensor], None]) -> None:
        """Add up the counts of all ranks; at the end of a window, renew the rates.

        The counts are summed in each update (0.1 % of what the gradients take), not only at the end of a window: a
        checkpoint within the window holds those of all ranks.
        """
        all_reduce(self.latest)
        self.seen_and_correct += self.latest
        self.latest.zero_()
        if (update_num + 1) % self.window == 0:
            seen, correct = self.seen_and_correct.float()
            error = 1 - (correct + 0.5) / (seen + 1)
            self.rates.mul_(1 - self.mix).add_(error, alpha=self.mix).clamp_(min=self.floor)
            self.seen_and_correct.zero_()

    def scores(self, tokens: Tensor, features: Optional[Tensor], noise: Tensor) -> Tensor:
        """ln rate of each token's type, and noise."""
        return self.rates.log()[tokens] + NOISE * noise
