"""The nine GLUE tasks (Wang et al. 2019) as data, and two that docstring_tasks.py makes in the same layout."""

from typing import Dict, NamedTuple, Optional, Tuple


class Task(NamedTuple):
    """
    folder: its name in the official layout; the hub's configuration is its lower-case letters and digits.
    columns: header names of the text or texts and of the label; of CoLA, which has no header, positions.
    labels: in the order of GLUE's class numbers, as the files write them; empty = a score (regression).
    dev: {name of the dev set: file}; fairseq's valid, valid1, …
    paper: metric in the paper's tables, which do not name it: the one whose majority-class values they print (CoLA
        accuracy, MRPC F1, …); None = not in the paper.
    official: GLUE's metrics; the mean of them is the task's official score.
    """

    folder: str
    columns: Tuple
    labels: Tuple[str, ...]
    dev: Dict[str, str]
    paper: Optional[str]
    official: Tuple[str, ...]

    def cells(self) -> Dict[str, str]:
        """{name of the dev set: what a table calls it}."""
        return {dev: self.folder if len(self.dev) == 1 else f"{self.folder}-{dev}" for dev in self.dev}

    @property
    def regression(self) -> bool:
        return not self.labels


ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")
DEV = {"dev": "dev.tsv"}

GLUE = {
    "cola": Task("CoLA", (3, 1), BINARY, DEV, "accuracy", ("mcc",)),
    "sst-2": Task("SST-2", ("sentence", "label"), BINARY, DEV, "accuracy", ("accuracy",)),
    "mrpc": Task("MRPC", ("#1 String", "#2 String", "Quality"), BINARY, DEV, "f1", ("f1", "accuracy")),
    "sts-b": Task("STS-B", ("sentence1", "sentence2", "score"), (), DEV, None, ("pearson", "spearman")),
    "qqp": Task("QQP", ("question1", "question2", "is_duplicate"), BINARY, DEV, "accuracy", ("f1", "accuracy")),
    "mnli": Task("MNLI", ("sentence1", "sentence2", "gold_label"), ("entailment", "neutral", "contradiction"),
                 {"matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"}, "accuracy", ("accuracy",)),
    "qnli": Task("QNLI", ("question", "sentence", "label"), ENTAILMENT, DEV, "accuracy", ("accuracy",)),
    "rte": Task("RTE", ("sentence1", "sentence2", "label"), ENTAILMENT, DEV, "accuracy", ("accuracy",)),
    "wnli": Task("WNLI", ("sentence1", "sentence2", "label"), BINARY, DEV, None, ("accuracy",)),
}
TASKS = {
    **GLUE,
    "library": Task("library", ("sentence", "label"), ("stdlib", "torch", "numpy", "scipy", "sklearn"), DEV, None,
                    ("accuracy",)),
    "order": Task("order", ("sentence", "label"), ("intact", "shuffled"), DEV, None, ("accuracy",)),
}
HIGHEST_SCORE = 5.0  # of STS-B; fairseq learns score / 5
