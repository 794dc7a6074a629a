"""A task of fairseq that reads clean text in blocks, which may grow in the course of a run."""

import logging
from typing import Any, Dict, Optional

import torch
from fairseq import utils
from fairseq.tasks.masked_lm import MaskedLMTask

from .checkpoints.vocabulary import read_dictionary_of_shards
from .config import block_lengths_of, with_length
from .system.errors import UsageError
from .training import block_lengths, plateau
from .training.blocks import load_samples, special_symbols

logger = logging.getLogger(__name__)


class TextTask(MaskedLMTask):
    """Clean blocks of text. fairseq's own task masks them in data workers, where nothing is known of the model.

    Args:
        cfg: an EntropyMaskedLMConfig, after its flags were checked.
        dictionary: fairseq's, with <mask>.
    """

    cfg: Any  # an EntropyMaskedLMConfig, not the base class's

    def __init__(self, cfg: Any, dictionary: Any = None):
        super().__init__(cfg, dictionary)
        self.trains = False  # set by setup_task
        specials = set(special_symbols(self.dictionary).tolist())
        self.ordinary = torch.tensor([i for i in range(len(self.dictionary)) if i not in specials])
        self.block_lengths = block_lengths_of(cfg, self.unigram_entropy())
        self.length = self.block_lengths.longest  # positions of a training block, set by load_dataset
        self.updates_per_epoch = 0  # set by get_batch_iterator

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """The flags. One block length is a number as in YAML: fairseq's own archs calculate with it."""
        super().add_args(parser)
        action = next(action for action in parser._actions if action.dest == "tokens_per_sample")
        action.type = block_lengths.as_setting

    @classmethod
    def load_dict(cls, cfg: Any) -> Any:
        """The dictionary of the data, with <mask>.

        Raises:
            UsageError: it is missing or damaged, or differs between shards.
        """
        return read_dictionary_of_shards(utils.split_paths(cfg.data))

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split as clean blocks.

        Raises:
            UsageError: there is no such split, it is damaged, or there is nothing to mask.
        """
        length = self.begin_blocks(epoch) if self.trains_on(split) else self.max_positions()
        samples: Any = load_samples(with_length(self.cfg, length), self.dictionary, split, epoch, combine)
        first = (samples[i]["src_tokens"] for i in range(min(len(samples), 1000)))
        if not any(samples.dataset.maskable(tokens).any() for tokens in first):
            raise UsageError(f"data: {split} in {self.cfg.data} begins with 1,000 sequences without anything to mask, "
                             "expected text in the symbols of dict.txt (is all of it <unk>?)")
        self.datasets[split] = samples

    def trains_on(self, split: str) -> bool:
        """Whether a split is what a training trains on."""
        return self.trains and split == self.cfg.train_subset

    def begin_blocks(self, epoch: int) -> int:
        """Set and return the length of the blocks of an epoch, see `training.block_lengths`. fairseq loads the data of
        one more epoch than it trains; longer blocks for that one would be scored, where scores are cached."""
        lengths, ends = self.block_lengths, (self.cfg.max_update, self.cfg.max_epoch)
        is_over = lengths.grows and lengths.is_over(epoch, *ends)
        self.length = lengths.latest() if is_over else lengths.begin_epoch(epoch, *ends)
        if lengths.grows and not is_over:
            logger.info(f"epoch {epoch}: blocks of {self.length} positions (--tokens-per-sample "
                        f"{self.cfg.tokens_per_sample})")
        return self.length

    def max_positions(self) -> int:
        """Positions of the longest block, which the model and the teacher must have."""
        return self.block_lengths.longest

    def has_sharded_data(self, split: str) -> bool:
        """Whether fairseq is to load the data anew in each epoch: other shards, or blocks that may be longer."""
        return super().has_sharded_data(split) or self.block_lengths.grows

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's iterator over the batches of an epoch; remembers how many updates a training epoch takes."""
        trains = self.trains and dataset is self.datasets.get(self.cfg.train_subset)
        if trains and kwargs.get("max_sentences"):  # as many tokens in every batch, whatever the length of the blocks
            kwargs["max_sentences"] = kwargs["max_sentences"] * self.max_positions() // self.length
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if trains:
            self.updates_per_epoch = -(-len(iterator) // self.cfg.update_freq[0])
        return iterator

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """fairseq's, once in an update on every rank; remembers how many there were."""
        super().optimizer_step(optimizer, model, update_num)
        self.block_lengths.updates = update_num + 1

    def learned_state(self) -> Dict[str, Any]:
        """What a checkpoint contains of blocks that grow."""
        blocks = self.block_lengths.state_dict()
        return {block_lengths.STATE: blocks} if blocks else {}

    def load_learned_state(self, state: Dict[str, Any]) -> None:
        """Resume from the `learned_state` of a checkpoint."""
        self.block_lengths.load_state_dict(state.get(block_lengths.STATE, {}))

    def unigram_entropy(self) -> Optional[float]:
        """Unigram entropy of the training data in bits, by the counts in dict.txt; None where it has no counts."""
        return plateau.unigram_entropy([self.dictionary.count[i] for i in self.ordinary.tolist()])
