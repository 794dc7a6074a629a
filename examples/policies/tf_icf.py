"""What is typical of this domain first: TF-ICF of Difference-Masking (Wilf et al. 2023, Findings of EMNLP).

Taken: a type's term frequency in this corpus times its inverse frequency in a general one, such as the text of the
model that is adapted. Left out: the paper makes the types with the highest TF-ICF anchors, and masks tokens in
proportion to how similar their embeddings are to an anchor's; here the number itself is the weight of a token.

    score = ln(tf / cf)     tf, cf: relative frequencies in the two dict.txt, where a count is at least 1

With `--mask-strategy gumbel`, tokens are masked in proportion to tf / cf.
"""

import os

import torch
from fairseq.data import Dictionary

from entropy_mask_plugin.masking import Option, Scores
from entropy_mask_plugin.scoring.sources import SOURCES, Source
from entropy_mask_plugin.system.errors import require

GENERAL = Option("", "dict.txt with the counts of a general corpus, of the same tokenizer, for --mask-source tf-icf")


@SOURCES.add("tf-icf", options={"general_dict": GENERAL})
class TfIcf(Source):
    """What is frequent here and rare in general first, by the counts in two dict.txt."""

    def __init__(self, task):
        super().__init__(task)
        path, here = task.cfg.general_dict, task.dictionary
        require("--general-dict", path or "none", os.path.isfile(path), "the dict.txt of a general corpus")
        general = Dictionary.load(path)
        count = dict(zip(general.symbols, general.count))
        tf = torch.tensor(here.count).clamp(min=1) / sum(here.count)  # V
        cf = torch.tensor([count.get(symbol, 0) for symbol in here.symbols]).clamp(min=1) / sum(general.count)
        self.scores = (tf / cf).log().to(task.scoring_device())

    def __call__(self, sample, model, when):
        return Scores(self.scores[sample["net_input"]["src_tokens"]])
