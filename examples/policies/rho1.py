"""What is still to be learned first: the excess loss of RHO-1 (Lin et al. 2024, NeurIPS), adapted to masks.

Taken: the score of a token is its loss under the model being trained minus that under a reference model. It is high
where there is something to learn, and low for what is learned already and for noise, which the reference cannot
predict either. Adapted: RHO-1's decoders read every token and train on those with the highest excess; here they are
masked (`--mask-strategy high`), the reference is --teacher, and the loss is --mask-score surprisal. By default
both models see the token whose loss is asked for; with `--entropy-folds F` it is hidden, as from a decoder.

    score = ln P_teacher(token) - ln P_model(token), in nats
"""

from entropy_mask_plugin.masking import Scores
from entropy_mask_plugin.scoring.sources import SOURCES, Source
from entropy_mask_plugin.system.errors import require


@SOURCES.add("excess-loss", reads=("teacher", "self"))
class ExcessLoss(Source):
    """The surprisal of the model being trained minus that of --teacher."""

    def __init__(self, task):
        super().__init__(task)
        require("--mask-score", task.cfg.mask_score, task.cfg.mask_score == "surprisal",
                "surprisal with --mask-source excess-loss")
        self.own, self.teacher = (SOURCES[name].fn(task) for name in ("self", "teacher"))

    def __call__(self, sample, model, when):
        return Scores(self.own(sample, model, when).exact() - self.teacher(sample, model, when).exact())
