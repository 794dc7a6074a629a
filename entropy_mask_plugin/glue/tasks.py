"""The nine GLUE tasks (Wang et al. 2019) as data, and two that docstring_tasks.py makes in the same layout."""

from typing import Dict, NamedTuple, Optional, Tuple

FAIRSEQ_METRICS = {  # of its criterion `sentence_prediction`
    "mcc": ("--report-mcc", "mcc"),
    "f1": ("--report-acc-and-f1", "acc_and_f1"),
    "pearson": ("--report-pearson-and-spearman", "pearson_and_spearman"),
}


class Task(NamedTuple):
    """
    folder: its name in the official layout.
    columns: header names of the text or texts and of the label; of CoLA, which has no header, positions.
    labels: in the order of GLUE's class numbers, as the files write them; empty = a score (regression).
    dev: {name of the dev set: file}; fairseq's valid, valid1, …
    paper: metric in the paper's tables, which do not name it: the one whose majority-class values they print (CoLA
        accuracy, MRPC F1, …); None = not in the paper.
    official: GLUE's metrics, of `metrics.FUNCTIONS`; the mean of them is the task's official score.
    skips_malformed: whether rows with another number of columns are left out, and counted, instead of refused.
    hub: name of the dataset on the hub, and its configuration; None = it is in files alone.
    highest_score: of a regression, whose scores begin at 0; fairseq learns the fraction of it.
    """

    folder: str
    columns: Tuple
    labels: Tuple[str, ...]
    dev: Dict[str, str]
    paper: Optional[str]
    official: Tuple[str, ...]
    skips_malformed: bool = False
    hub: Optional[Tuple[str, str]] = None
    highest_score: float = 1.0

    def cells(self) -> Dict[str, str]:
        """{name of the dev set: what a table calls it}."""
        return {dev: self.folder if len(self.dev) == 1 else f"{self.folder}-{dev}" for dev in self.dev}

    @property
    def fairseq_metric(self) -> Tuple[Optional[str], str]:
        """The flag with which fairseq's criterion computes the first official metric, and its name there; accuracy
        where it has none such. The best epoch has the highest."""
        return FAIRSEQ_METRICS.get(self.official[0], (None, "accuracy"))

    @property
    def regression(self) -> bool:
        return not self.labels


ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")
DEV = {"dev": "dev.tsv"}

def on_hub(configuration: str) -> Tuple[str, str]:
    return "nyu-mll/glue", configuration


GLUE = {
    "cola": Task("CoLA", (3, 1), BINARY, DEV, "accuracy", ("mcc",), hub=on_hub("cola")),
    "sst-2": Task("SST-2", ("sentence", "label"), BINARY, DEV, "accuracy", ("accuracy",), hub=on_hub("sst2")),
    "mrpc": Task("MRPC", ("#1 String", "#2 String", "Quality"), BINARY, DEV, "f1", ("f1", "accuracy"),
                 hub=on_hub("mrpc")),
    "sts-b": Task("STS-B", ("sentence1", "sentence2", "score"), (), DEV, None, ("pearson", "spearman"),
                  hub=on_hub("stsb"), highest_score=5.0),
    "qqp": Task("QQP", ("question1", "question2", "is_duplicate"), BINARY, DEV, "accuracy", ("f1", "accuracy"),
                skips_malformed=True, hub=on_hub("qqp")),
    "mnli": Task("MNLI", ("sentence1", "sentence2", "gold_label"), ("entailment", "neutral", "contradiction"),
                 {"matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"}, "accuracy", ("accuracy",),
                 hub=on_hub("mnli")),
    "qnli": Task("QNLI", ("question", "sentence", "label"), ENTAILMENT, DEV, "accuracy", ("accuracy",),
                 hub=on_hub("qnli")),
    "rte": Task("RTE", ("sentence1", "sentence2", "label"), ENTAILMENT, DEV, "accuracy", ("accuracy",),
                hub=on_hub("rte")),
    "wnli": Task("WNLI", ("sentence1", "sentence2", "label"), BINARY, DEV, None, ("accuracy",), hub=on_hub("wnli")),
}
TASKS = {  # a package of one's own adds to it: TASKS["mine"] = Task(...)
    **GLUE,
    "library": Task("library", ("sentence", "label"), ("stdlib", "torch", "numpy", "scipy", "sklearn"), DEV, None,
                    ("accuracy",)),
    "order": Task("order", ("sentence", "label"), ("intact", "shuffled"), DEV, None, ("accuracy",)),
}
