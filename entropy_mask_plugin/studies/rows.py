"""The studies and their rows, as data.

A row's flags are those of its pretraining, beside the scale's. In them, {teacher} is the path of the frozen teacher and
{cache} the folder of its entropies.
"""

from typing import NamedTuple, Optional

TEACHER = "the-teacher"


class Row(NamedTuple):
    """
    flags: of fairseq-train; None = this row pretrains nothing.
    pretraining: the row whose pretrained model is fine-tuned, where it is another one; TEACHER = the teacher.
    tuning: flags of the command `glue`.
    corpus: which of the corpora of --data it is pretrained on, from 0.
    against: the row that it is compared with.
    paper: its row in the paper's tables, without the name of the model; None = the paper has no table of it.
    said: what the paper says of it where it has no table.
    """

    flags: Optional[str] = None
    pretraining: Optional[str] = None
    tuning: str = ""
    corpus: int = 0
    against: str = "random"
    paper: Optional[str] = None
    said: str = ""


BY_TEACHER = " --teacher {teacher} --entropy-cache {cache}"
INIT = "--mask-strategy high --self-mask-from-epoch 2" + BY_TEACHER
FROZEN = "--freeze-encoder --max-epochs 1"

ROWS = {
    "random": Row("--mask-strategy random", paper="random"),
    "random-static": Row("--mask-strategy random --static-masks"),
    # section 3.1, table 1
    "high": Row("--mask-strategy high" + BY_TEACHER, paper="high"),
    "low": Row("--mask-strategy low" + BY_TEACHER, paper="low"),
    "marginal": Row("--mask-strategy marginal" + BY_TEACHER, paper="marginal"),
    "alternating": Row("--mask-strategy alternating" + BY_TEACHER, paper="alternating"),
    "mid": Row("--mask-strategy mid" + BY_TEACHER, paper="mid"),
    # section 3.2, table 2
    "high-cold": Row("--mask-strategy high --self-mask-from-epoch 1", paper="high, cold"),
    "high-init": Row(INIT, paper="high, init"),
    # section 3.3
    "random-frozen": Row(pretraining="random", tuning=FROZEN),
    "high-frozen": Row(pretraining="high", tuning=FROZEN, against="random-frozen",
                       said="BERTlet with high-entropy masks is 3 % above the baseline"),
    "high-init-frozen": Row(pretraining="high-init", tuning=FROZEN, against="random-frozen"),
    # section 3.4
    "random-40": Row("--mask-strategy random --mask-prob 0.4"),
    "high-40": Row("--mask-strategy high --mask-prob 0.4" + BY_TEACHER, against="high",
                   said="no significant improvement over 15 %"),
    "low-40": Row("--mask-strategy low --mask-prob 0.4" + BY_TEACHER, against="low"),
    "random-one": Row("--mask-strategy random --mask-count 1"),
    "high-one": Row("--mask-strategy high --mask-count 1" + BY_TEACHER, against="high",
                    said="about 1 % below 15 %"),
    "low-one": Row("--mask-strategy low --mask-count 1" + BY_TEACHER, against="low"),
    # section 3.5
    "random-corpus-2": Row("--mask-strategy random", corpus=1, said="BERTlet on BookCorpus: mean of seven tasks 71.66"),
    "high-init-corpus-2": Row(INIT, corpus=1, against="random-corpus-2",
                              said="BERTlet on BookCorpus: mean of seven tasks 77.09"),
    # section 3.6
    "kd-only": Row("--mask-strategy random --teacher {teacher} --kd-weight 0.5"),
    "kd-complete": Row(INIT + " --kd-weight 0.5", said="BERTlet: mean of seven tasks 76.04"),
    "kd-after-init": Row(INIT + " --kd-weight 0.5 --kd-start-epoch 2", said="BERTlet: mean of seven tasks 77.19"),
    # in no table of the paper
    TEACHER: Row(pretraining=TEACHER),
    "no-pretraining": Row("--mask-strategy random --lr 0 --max-update 1"),
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
}

CORRUPTIONS = {  # what becomes of a selected token; of the teacher, always BERT's
    "all-mask": "--leave-unmasked-prob 0 --random-token-prob 0",  # the paper's
    "80-10-10": "--leave-unmasked-prob 0.1 --random-token-prob 0.1",  # BERT's
}
PAPERS_CORRUPTION = "all-mask"


def rows_of(studies):
    """Names of the rows of several studies, each once, in the order of the tables."""
    wanted = {name for study in studies for name in STUDIES[study]}
    return [name for name in ROWS if name in wanted]
