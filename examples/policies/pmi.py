"""Collocations first: PMI-Masking (Levine et al. 2021, ICLR), with NPMI as in CM-GEMS (Roy et al. 2024, ECAI).

Taken: NPMI(a, b) = ln(p(ab) / p(a) p(b)) / -ln p(ab) of neighbours in the training data; 0 for pairs that are seen
less than --pmi-min-count times. A token has the larger NPMI of its two pairs: with `--mask-strategy high`, both tokens
of a collocation are masked. Left out: longer n-grams. A unit would be nearer to PMI-Masking, but sees no training data.
"""

import torch
from torch.nn.functional import pad

from entropy_mask_plugin.masking import Option, Scores
from entropy_mask_plugin.scoring.sources import SOURCES, Source
from entropy_mask_plugin.system.errors import require

COUNT = Option(10, "how often --mask-source pmi must see a pair of tokens", lambda n: n >= 1, "1 or more")


@SOURCES.add("pmi", options={"pmi_min_count": COUNT})
class Pmi(Source):
    """Collocations first, by the pointwise mutual information of neighbours in the training data."""

    def __init__(self, task):  # counts once, before the first update
        super().__init__(task)
        samples, self.size = task.dataset(task.cfg.train_subset).dataset, len(task.dictionary)
        text = torch.cat([samples.blocks[i] for i in range(len(samples))])  # no pair crosses the <s> of the next block
        is_pair = samples.maskable(text[:-1]) & samples.maskable(text[1:])
        pairs, n = torch.unique((text[:-1] * self.size + text[1:])[is_pair], return_counts=True)
        first, second = pairs // self.size, pairs % self.size
        expected = first.bincount(n)[first] * second.bincount(n)[second] / n.sum()
        npmi = (n / expected).log() / -(n.double() / n.sum()).log()
        often = n >= task.cfg.pmi_min_count
        require("--pmi-min-count", task.cfg.pmi_min_count, often.any(), "less: no pair of tokens is seen so often")
        self.pairs, self.npmi = (x[often].to(task.scoring_device()) for x in (pairs, npmi.float()))

    def __call__(self, sample, model, when):
        tokens = sample["net_input"]["src_tokens"]
        pairs = tokens[:, :-1] * self.size + tokens[:, 1:]  # B x (T - 1)
        at = torch.searchsorted(self.pairs, pairs).clamp(max=len(self.pairs) - 1)
        npmi = torch.where(self.pairs[at] == pairs, self.npmi[at], 0)
        return Scores(torch.maximum(pad(npmi, (1, 0)), pad(npmi, (0, 1))))
