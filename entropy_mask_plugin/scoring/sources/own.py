"""The model that is being trained."""

import logging
from contextlib import contextmanager
from typing import Any, Iterator, Mapping

import torch
from fairseq import utils

from ...masking import noise
from ...masking.scores import Scores
from ...masking.when import When
from .. import schedule
from .registry import SOURCES, Source

logger = logging.getLogger(__name__)


@SOURCES.add("self", reads="self")
class Own(Source):
    """The model being trained: its weights before the update, dropout off."""

    name = "self"
    has_warned = False

    def __call__(self, sample: Mapping[str, Any], model: torch.nn.Module, when: When) -> Scores:
        """Scores of the model before the update, or of an earlier epoch under --self-entropy-every."""
        if self.task.learner is not None:
            return self.learned(sample, model, when)
        cfg = self.task.cfg
        begin = max(self.task.sources_by_epoch.first_epoch_of(self.name),
                    self.task.block_lengths.first_epoch_like(when.epoch))  # scores of blocks that were shorter are lost
        epoch = schedule.epoch_of_self_entropies(when.epoch, begin, cfg.self_entropy_every,
                                                 len(utils.split_paths(cfg.data)))
        if epoch != when.epoch and set(sample["self_entropy_epochs"]) == {epoch}:
            return Scores(sample["self_entropy_bits"].view(torch.float32))
        if epoch != when.epoch:
            self.warn(epoch, when.epoch)
        keeps = cfg.self_entropy_every > 1
        with in_eval_mode(model):
            scores = Scores(self.task.scorer.exact(model, sample)) if keeps else self.task.scorer(model, sample)
        if keeps:
            store = self.task.datasets[cfg.train_subset].dataset.self_entropies
            store.write(sample["ids"], scores.values.cpu().numpy(), epoch)
        return scores

    def learned(self, sample: Mapping[str, Any], model: torch.nn.Module, when: When) -> Scores:
        """What the learner has for these tokens, by the model's features where it needs them."""
        clean, scorer, epoch = sample["net_input"], self.task.scorer, self.task.masker.epoch_of_noise(when)
        ties = noise.uniform(self.task.cfg.seed, epoch, sample["id"], clean["src_tokens"].size(1), noise.TIES)
        if scorer.needs == "history":
            return scorer.learned(model, clean, ties)
        with in_eval_mode(model):
            return scorer.learned(model, clean, ties)

    def warn(self, epoch: int, now: int) -> None:
        """Log once that scores of `epoch` are missing and are computed in epoch `now`."""
        if not self.has_warned:
            logger.warning(f"--entropy-cache: some self entropies of epoch {epoch} are missing and are computed again "
                           f"in epoch {now}, unlike in an uninterrupted run")
            self.has_warned = True


@SOURCES.add("ema", reads="ema")
class Average(Own):
    """The slow average of the model's weights that fairseq keeps with --store-ema."""

    name = "ema"


@contextmanager
def in_eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout; then training goes on."""
    model.eval()
    yield
    model.train()
