"""The studies and their conditions, as data. A condition is a row of a table: a name, and how its model is made.

A condition's flags are those of its pretraining, beside the scale's. In them, {teacher} is the path of the frozen
teacher and {cache} the folder of its entropies.
"""

from typing import Iterable, List, NamedTuple, Optional

TEACHER = "the-teacher"


class Condition(NamedTuple):
    """
    flags: of fairseq-train; None = this condition pretrains nothing.
    pretraining: the condition whose pretrained model is fine-tuned, where it is another one; TEACHER = the teacher.
    tuning: flags of `entropy-mask glue`.
    corpus: which of the corpora of --data it is pretrained on, from 0.
    baseline: the condition that it is compared with.
    paper: its row in the paper's tables, without the name of the model; None = the paper has no table of it.
    paper_claim: the paper's text about it where it has no table.
    """

    flags: Optional[str] = None
    pretraining: Optional[str] = None
    tuning: str = ""
    corpus: int = 0
    baseline: str = "random"
    paper: Optional[str] = None
    paper_claim: str = ""


TEACHER_FLAGS = " --teacher {teacher} --entropy-cache {cache}"
INIT = "--mask-strategy high --self-mask-from-epoch 2" + TEACHER_FLAGS
COLD = "--mask-strategy high --self-mask-from-epoch 1"
RAMP = " --guided-fraction 0:0.5"
EMA = " --self-mask-model ema --store-ema --ema-decay 0.999"
CAREFUL = "--self-mask-from-epoch 2" + RAMP + EMA  # meant to keep a model that chooses its own masks from collapsing
FROZEN = "--freeze-encoder --max-epochs 1"

CONDITIONS = {
    "random": Condition("--mask-strategy random", paper="random"),
    "random-static": Condition("--mask-strategy random --static-masks"),
    # section 3.1, table 1
    "high": Condition("--mask-strategy high" + TEACHER_FLAGS, paper="high"),
    "low": Condition("--mask-strategy low" + TEACHER_FLAGS, paper="low"),
    "marginal": Condition("--mask-strategy marginal" + TEACHER_FLAGS, paper="marginal"),
    "alternating": Condition("--mask-strategy alternating" + TEACHER_FLAGS, paper="alternating"),
    "mid": Condition("--mask-strategy mid" + TEACHER_FLAGS, paper="mid"),
    # section 3.2, table 2
    "high-cold": Condition("--mask-strategy high --self-mask-from-epoch 1", paper="high, cold"),
    "high-init": Condition(INIT, paper="high, init"),
    # section 3.3
    "random-frozen": Condition(pretraining="random", tuning=FROZEN),
    "high-frozen": Condition(pretraining="high", tuning=FROZEN, baseline="random-frozen",
                             paper_claim="BERTlet with high-entropy masks is 3 % above the baseline"),
    "high-init-frozen": Condition(pretraining="high-init", tuning=FROZEN, baseline="random-frozen"),
    # section 3.4
    "random-40": Condition("--mask-strategy random --mask-prob 0.4"),
    "high-40": Condition("--mask-strategy high --mask-prob 0.4" + TEACHER_FLAGS, baseline="high",
                         paper_claim="no significant improvement over 15 %"),
    "low-40": Condition("--mask-strategy low --mask-prob 0.4" + TEACHER_FLAGS, baseline="low"),
    "random-one": Condition("--mask-strategy random --mask-count 1"),
    "high-one": Condition("--mask-strategy high --mask-count 1" + TEACHER_FLAGS, baseline="high",
                          paper_claim="about 1 % below 15 %"),
    "low-one": Condition("--mask-strategy low --mask-count 1" + TEACHER_FLAGS, baseline="low"),
    # section 3.5
    "random-corpus-2": Condition("--mask-strategy random", corpus=1,
                                 paper_claim="BERTlet on BookCorpus: mean of seven tasks 71.66"),
    "high-init-corpus-2": Condition(INIT, corpus=1, baseline="random-corpus-2",
                                    paper_claim="BERTlet on BookCorpus: mean of seven tasks 77.09"),
    # section 3.6
    "kd-only": Condition("--mask-strategy random --teacher {teacher} --kd-weight 0.5"),
    "kd-complete": Condition(INIT + " --kd-weight 0.5", paper_claim="BERTlet: mean of seven tasks 76.04"),
    "kd-after-init": Condition(INIT + " --kd-weight 0.5 --kd-start-epoch 2",
                               paper_claim="BERTlet: mean of seven tasks 77.19"),
    # policies that choose and learn at once, each beside random masks at its own rate
    "random-30": Condition("--mask-strategy random --mask-prob 0.3"),
    "random-30-15": Condition("--mask-strategy random --mask-prob 0.3:0.15"),
    "cold-half": Condition(COLD + " --guided-fraction 0.5"),
    "cold-half-sequences": Condition(COLD + " --guided-fraction 0.5 --guided-by sequences"),
    "cold-ramp-ema": Condition(COLD + RAMP + EMA),
    "init-ramp-ema": Condition("--mask-strategy high " + CAREFUL),
    "init-ramp-ema-30": Condition("--mask-strategy high --mask-prob 0.3 " + CAREFUL, baseline="random-30"),
    "init-ramp-ema-30-15": Condition("--mask-strategy high --mask-prob 0.3:0.15 " + CAREFUL, baseline="random-30-15"),
    "high-init-half": Condition(INIT + " --guided-fraction 0.5"),
    "gumbel": Condition("--mask-strategy gumbel " + CAREFUL),
    "surprisal": Condition("--mask-strategy high --mask-score surprisal " + CAREFUL),
    "contextual": Condition("--mask-strategy high --entropy-folds 7" + TEACHER_FLAGS),
    "accuracy": Condition("--mask-strategy gumbel --mask-score accuracy"),
    "predicted-loss": Condition("--mask-strategy high --mask-score predicted-loss " + CAREFUL),
    "word": Condition("--mask-strategy high --mask-unit word " + CAREFUL),
    # in no table of the paper
    TEACHER: Condition(pretraining=TEACHER),
    "no-pretraining": Condition("--mask-strategy random --lr 0 --max-update 1"),
}

STUDIES = {
    "teacher-masking": ("random", "random-static", "high", "low", "marginal", "alternating", "mid", TEACHER,
                        "no-pretraining"),
    "self-masking": ("random", "high", "high-cold", "high-init"),
    "frozen": ("random-frozen", "high-frozen", "high-init-frozen"),
    "masking-rate": ("random", "high", "low", "random-40", "high-40", "low-40", "random-one", "high-one", "low-one"),
    "corpus": ("random", "high-init", "random-corpus-2", "high-init-corpus-2"),
    "distillation": ("random", "high-init", "kd-only", "kd-complete", "kd-after-init"),
    "drift": ("random", "high-init"),
    "adaptive": ("random", "random-30", "random-30-15", "high-cold", "cold-half", "cold-half-sequences",
                 "cold-ramp-ema", "init-ramp-ema", "init-ramp-ema-30", "init-ramp-ema-30-15", "high-init-half",
                 "gumbel", "surprisal", "contextual", "accuracy", "predicted-loss", "word"),
}

CORRUPTIONS = {  # what replaces a selected token; in the teacher's training, always as BERT has it
    "all-mask": "--leave-unmasked-prob 0 --random-token-prob 0",  # the paper's
    "80-10-10": "--leave-unmasked-prob 0.1 --random-token-prob 0.1",  # BERT's
}
PAPERS_CORRUPTION = "all-mask"


def condition_names(studies: Iterable[str]) -> List[str]:
    """Conditions of several studies, each once, in the order of the tables."""
    names = {name for study in studies for name in STUDIES[study]}
    return [name for name in CONDITIONS if name in names]
