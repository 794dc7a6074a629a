"""The tokenizer that a model was trained with, ready to encode text."""

import os
from typing import Sequence

from ..huggingface.sentencepiece_model import read_tokenizer
from ..system.errors import UsageError
from .settings import CorpusTokenizer
from .wordpiece import WordPieceTokenizer


def read_matching_tokenizer(path: str, symbols: Sequence[str]) -> CorpusTokenizer:
    """Read a tokenizer and check it against a model's vocabulary.

    Args:
        path: as `find_tokenizer` returns it: a Hugging Face folder, a vocab.txt or a SentencePiece model.
        symbols: of the model's dictionary.
    Raises:
        UsageError: it cannot be read, or has subword tokens that are none of the symbols.
    """
    model = os.path.join(path, "tokenizer.model")  # beside a tokenizer.json that was made of it
    if os.path.isfile(model):
        path = model
    is_bert = os.path.isdir(path) or path.endswith(".txt")
    tokenizer = WordPieceTokenizer(path) if is_bert else read_tokenizer(path)
    unknown = sorted({line.rsplit(" ", 1)[0] for line in tokenizer.dictionary({}).splitlines()} - set(symbols))
    if unknown:
        raise UsageError(f"--tokenizer: {path} has subword tokens that the checkpoint does not have, {unknown[0]!r} "
                         "for one; expected the tokenizer that it was trained with")
    return tokenizer
