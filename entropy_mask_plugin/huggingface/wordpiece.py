"""BERT's WordPiece, by the package `tokenizers`: uncased or cased, as the files beside the vocabulary say."""

import json
import os
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..system.errors import UsageError
from .source import read_json
from .vocabulary import Vocabulary, read_vocabulary


class WordPiece(NamedTuple):
    vocabulary: Vocabulary
    tokenizer: Tokenizer  # of plain text: special tokens are neither added nor recognised
    settings: dict  # as tokenizer_config.json names them


def read_wordpiece(path, flag):
    """BERT's tokenizer, ready to encode text.

    Args:
        path: a Hugging Face folder, or a vocab.txt.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: see `read_vocabulary`; a tokenizer.json of another kind.
    """
    vocabulary = read_vocabulary(path, flag)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    settings = settings_of(folder, vocabulary, flag)
    file = os.path.join(path, "tokenizer.json")
    if os.path.exists(file):
        return WordPiece(vocabulary, plain_tokenizer(file, flag), settings)
    return WordPiece(vocabulary, new_tokenizer(vocabulary, settings), settings)


def settings_of(folder, vocabulary, flag):
    config = {}
    if os.path.exists(os.path.join(folder, "tokenizer_config.json")):
        config = read_json(folder, "tokenizer_config.json", flag)
    for name, assumed in (("do_basic_tokenize", True), ("word_tokenizer_type", "basic")):  # BertJapaneseTokenizer's
        if config.get(name, assumed) != assumed:
            raise UsageError(f"{flag}: {folder}/tokenizer_config.json: {name} {config[name]!r} found, expected "
                             f"{assumed!r}: words are cut by BERT's own rules here")
    return {
        # A file that does not say it means what transformers takes it for; a bare vocab.txt says it itself.
        "do_lower_case": config.get("do_lower_case", True) if config else not has_capitals(vocabulary),
        "strip_accents": config.get("strip_accents"),  # None: where letters become small
        "tokenize_chinese_chars": config.get("tokenize_chinese_chars", True),
    }


def has_capitals(vocabulary):
    """Whether a vocabulary keeps case: specials, BERT's [unused0] … and the <S> and <T> of some do not count."""
    ordinary = (token for token in vocabulary.tokens if not token.startswith(("[", "<")) and token not in
                vocabulary.specials.values())
    return any(token != token.lower() for token in ordinary)


def plain_tokenizer(file, flag):
    """A tokenizer.json without what it does to special tokens: text that contains "[SEP]" shall not end a sentence."""
    tokenizer = Tokenizer.from_file(file)  # older files do not name the type of their model
    if not isinstance(tokenizer.model, models.WordPiece):
        kind = type(tokenizer.model).__name__
        raise UsageError(f"{flag}: {file} is a tokenizer of type {kind}, expected WordPiece")
    content = json.loads(tokenizer.to_str())
    ordinary = [token for token in content["added_tokens"] if not token["special"]]  # words that somebody has added
    return Tokenizer.from_str(json.dumps(
        {**content, "added_tokens": ordinary, "post_processor": None, "truncation": None, "padding": None}
    ))


def new_tokenizer(vocabulary, settings):
    """BERT's own rules (Devlin et al. 2019): words of more than 100 characters are unknown."""
    unk = vocabulary.specials["unk"]
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unk, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=settings["tokenize_chinese_chars"],
        strip_accents=settings["strip_accents"], lowercase=settings["do_lower_case"],
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
