"""What the model gets wrong first: the hard rule of AMLM (Edman and Fraser 2025, BabyLM, main.31).

Taken: the weights w of types, 1 at first; after each window of 200 updates, in which c of n answers were correct,
w <- max(1/30, 0.2 w + 0.8 (1 - (c + 1/2) / (n + 1))), divided by its mean. (Theirs are 0.15 times these, floor 0.005.)
Simplified: exactly k tokens are masked, in proportion to w (`--mask-strategy gumbel`), instead of each with probability
rate T w / sum(w). The built-in `accuracy` counts in integers, does not divide by the mean, and has the floor 0.005.
"""

import torch

from entropy_mask_plugin.masking import SCORES, Learner, Option

WINDOW = Option(200, "updates after which --mask-score amlm renews its weights", lambda n: n >= 1, "1 or more")


@SCORES.add("amlm", needs="history", options={"amlm_window": WINDOW})
class Amlm(Learner):
    """How often the model was wrong about tokens of this type, as in AMLM."""
    def __init__(self, vocabulary_size, width, amlm_window):
        super().__init__(vocabulary_size, width)
        self.window = amlm_window
        self.register_buffer("weights", torch.ones(vocabulary_size))
        self.register_buffer("counts", torch.zeros(vocabulary_size, 2))  # wrong and correct ones, of this window
        self.register_buffer("latest", torch.zeros(vocabulary_size, 2), persistent=False)  # of this update and rank

    def observe(self, answers):
        self.latest.index_put_((answers.target, answers.correct.long()), torch.ones_like(answers.losses), True)

    def update(self, update_num, all_reduce):
        all_reduce(self.latest)
        self.counts += self.latest
        self.latest.zero_()
        if (update_num + 1) % self.window == 0:
            wrong, correct = self.counts.unbind(1)
            new = (0.2 * self.weights + 0.8 * (1 - (correct + 0.5) / (wrong + correct + 1))).clamp(min=1 / 30)
            self.weights = new / new.mean()
            self.counts.zero_()

    def scores(self, tokens, features, noise):
        return self.weights.log()[tokens] + 1e-3 * noise  # breaks ties
