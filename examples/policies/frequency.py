"""Rare tokens first: frequency-informed masking (Kosmopoulou et al. 2025, BabyLM, main.38).

Taken: the weight of a type is its rank by frequency (0 = the most frequent), scaled to [0, 1] over the tokens of the
sentence, to the power p, which softens it: 0.02 in the paper, reached from 0 (random masks) over the run.
Simplified: exactly k tokens are masked, in proportion to the weights (`--mask-strategy gumbel`), instead of one coin
for each at diffusion's random rates. Changed: + 1, since in theirs a sentence's most frequent type is never masked.

    score = p ln((rank - lowest + 1) / (highest - lowest + 1))
"""

import torch

from entropy_mask_plugin.masking import Option, Scores
from entropy_mask_plugin.masking.policy import is_rate
from entropy_mask_plugin.masking.rates import parse_rate, rate_at
from entropy_mask_plugin.scoring.sources import SOURCES, Source

POWER = Option("0.02", "power of the ranks of --mask-source frequency, 0 (random masks) or more; FIRST:LAST changes "
               "linearly over the run", lambda text: is_rate(text, lambda p: p >= 0), "0 or more, or FIRST:LAST")


@SOURCES.add("frequency", options={"frequency_power": POWER})
class Frequency(Source):
    """Rare tokens first, by the counts in dict.txt."""

    def __init__(self, task):
        super().__init__(task)
        order = torch.tensor(task.dictionary.count).argsort(descending=True, stable=True)
        self.ranks = order.argsort().float().to(task.scoring_device())  # V
        self.power = parse_rate(task.cfg.frequency_power)

    def __call__(self, sample, model, when):
        ranks, maskable = self.ranks[sample["net_input"]["src_tokens"]], sample["maskable"]  # B x T
        highest = ranks.masked_fill(~maskable, 0).amax(1, keepdim=True)
        lowest = ranks.masked_fill(~maskable, len(self.ranks)).amin(1, keepdim=True).minimum(highest)
        weights = (ranks - lowest + 1).clamp(min=1) / (highest - lowest + 1)  # of special tokens: any number
        return Scores(rate_at(self.power, when.progress) * weights.log())
