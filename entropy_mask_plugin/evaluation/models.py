"""A model to evaluate, and how text becomes its input: `<s> … </s>`, as in the blocks of pretraining."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any, Dict, List, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask
from torch.nn.utils.rnn import pad_sequence

from ..checkpoints.reading import NO_HEAD, file_or_huggingface_folder, read_checkpoint
from ..checkpoints.structure import section_of
from ..checkpoints.vocabulary import symbols_of_checkpoint
from ..corpus.matching import read_matching_tokenizer
from ..corpus.settings import CorpusTokenizer
from ..huggingface.importing import dictionary_of, read_bert
from ..huggingface.tokenizer_files import find_tokenizer
from ..masking.units.word import check_words, number_words, prefix_of
from ..masking.vocabulary import Vocabulary
from ..pretrained.teacher import Teacher, load_masked_lm, refuse_headless
from ..system.errors import UsageError, require
from ..system.finite import refuse_not_finite
from ..training.block_lengths import parse_lengths
from .pseudo_likelihood import Sentence

FLAG = "--checkpoint"
USE = "likelihoods"
NEVER_SCORED = ("<s>", "<pad>", "</s>", "<mask>")


class SentenceEncoder:
    """Text as a model's input.

    Args:
        path: of the model or its data, for messages; its tokenizer is looked for beside it.
        symbols: of its dictionary.
        tokenizer_path: where its tokenizer is; None = look for it when it is needed.
        state: of a checkpoint, which says where its tokenizer may be.
    """

    def __init__(self, path: str, symbols: List[str], tokenizer_path: Optional[str], state: Dict[str, Any]):
        self.path, self.tokenizer_path, self.state = path, tokenizer_path, state
        self.dictionary = dictionary_of(symbols)
        self.vocabulary = Vocabulary(self.dictionary.index("<mask>"), self.dictionary.pad(), torch.empty(0),
                                     self.dictionary.symbols)
        self.never_scored = torch.tensor([self.dictionary.index(symbol) for symbol in NEVER_SCORED])

    @property
    def mask(self) -> int:
        """The id of <mask>."""
        return self.vocabulary.mask

    @functools.cached_property
    def tokenizer(self) -> CorpusTokenizer:
        """Its tokenizer; raises a UsageError where none is found, or one of another vocabulary."""
        path = find_tokenizer(self.tokenizer_path, self.path, self.state)
        return read_matching_tokenizer(path, self.dictionary.symbols)

    @functools.cached_property
    def marks_words(self) -> bool:
        """Whether its vocabulary says where words begin."""
        return prefix_of(self.dictionary.symbols) is not None

    def require_words(self, flag: str) -> None:
        """Raise a UsageError where its vocabulary does not say where words begin. flag: what needs them."""
        try:
            check_words(self.dictionary.symbols, flag)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def encode(self, texts: Sequence[str]) -> List[List[int]]:
        """The ids of each text, without <s> and </s>."""
        index = [self.dictionary.index(name) for name in self.tokenizer.names]
        workers = len(os.sched_getaffinity(0))
        return [[index[i] for i in ids] for ids in self.tokenizer.encode(list(texts), workers)] if texts else []

    def sentences(self, texts: Sequence[Sequence[int]]) -> List[Sentence]:
        """The inputs of encoded texts."""
        return self.with_words([[self.dictionary.bos(), *ids, self.dictionary.eos()] for ids in texts])

    def with_words(self, inputs: Sequence[Sequence[int]]) -> List[Sentence]:
        """Inputs with their words, or with each token as a word where the vocabulary marks none. Everything is scored,
        <unk> too, but <s>, </s>, <pad> and <mask>."""
        if not inputs:
            return []
        tokens = pad_sequence([torch.tensor(row) for row in inputs], batch_first=True,
                              padding_value=self.dictionary.pad())  # B x T
        scored = ~torch.isin(tokens, self.never_scored)
        words = (number_words(tokens, scored, self.vocabulary) if self.marks_words else
                 torch.arange(tokens.size(1)).expand_as(tokens))
        numbers = words.masked_fill(~scored, -1).tolist()
        return [Sentence(tuple(row), tuple(of_row[: len(row)])) for row, of_row in zip(inputs, numbers)]

    def count_unknown(self, sentence: Sentence) -> int:
        """Number of <unk> in an input."""
        return sentence.tokens.count(self.dictionary.unk())


class EvaluatedModel(SentenceEncoder):
    """A model in eval mode and fp32, on the GPU where there is one.

    Args:
        path: for messages.
        model: one of our archs or fairseq's `roberta`.
        symbols: of its dictionary.
        settings: of the task that it was trained with; {} = unknown.
        tokenizer_path: where its tokenizer is; None = look for it when it is needed.
        state: of a checkpoint, which says where its tokenizer may be.
    """

    def __init__(self, path: str, model: Teacher, symbols: List[str], settings: Dict[str, Any],
                 tokenizer_path: Optional[str], state: Dict[str, Any]):
        super().__init__(path, symbols, tokenizer_path, state)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        refuse_not_finite(model.state_dict(), path, FLAG)
        self.model = model.float().to(device).requires_grad_(False).eval()
        self.settings, self.max_positions = settings, model.max_positions()

    @property
    def block_length(self) -> int:
        """Positions that it was trained on, where that is known, else all that it has."""
        return min(parse_lengths(self.settings.get("tokens_per_sample") or self.max_positions)[-1], self.max_positions)

    def refuse_nan(self, values: List[float]) -> List[float]:
        """The values; raises a UsageError where one is nan, which would count as a wrong answer."""
        require(FLAG, f"{self.path}, which predicts nan,", not any(map(math.isnan, values)), "finite weights")
        return values


def read_model(path: str, tokenizer: Optional[str] = None) -> EvaluatedModel:
    """Read a model that predicts masked tokens.

    Args:
        path: checkpoint of one of our archs or of fairseq's `roberta`, the Hugging Face folder of a BERT, or a folder
            that `entropy-mask import-hf-bert` made.
        tokenizer: path of its tokenizer; None = in the folder, or next to the checkpoint and to its training data.
    Raises:
        UsageError: see `read_checkpoint` and `read_bert`; no (trained) masked-LM head; an unknown vocabulary.
    """
    path = file_or_huggingface_folder(path, FLAG)
    if os.path.isdir(path):
        bert = read_bert(path, FLAG)
        refuse_headless(bert.has_head, path, FLAG, USE)
        return EvaluatedModel(path, bert.model(), bert.vocabulary.symbols(), {}, tokenizer or path, {})
    state = read_checkpoint(path, FLAG)
    refuse_headless(NO_HEAD not in (state.get("extra_state") or {}), path, FLAG, USE)
    symbols = symbols_of_checkpoint(state, path)
    if symbols is None:
        raise UsageError(f"{FLAG}: {path} does not record its vocabulary, expected a dict.txt in its folder")
    model = load_masked_lm(path, FLAG, VocabularyTask(dictionary_of(symbols)))
    settings = section_of(state, "task")
    return EvaluatedModel(path, model, symbols, settings, tokenizer, state)


class VocabularyTask(FairseqTask):
    """What an arch asks of a task, without data."""

    def __init__(self, dictionary: Dictionary):
        super().__init__(FairseqDataclass())
        self.dictionary = dictionary

    @property
    def source_dictionary(self) -> Dictionary:
        """The dictionary of the model, with <mask>."""
        return self.dictionary

    def max_positions(self) -> int:
        """Not of the task: the model says it."""
        return 1
