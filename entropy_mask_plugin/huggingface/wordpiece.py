"""BERT's WordPiece with the package `tokenizers`: uncased or cased, as the vocabulary's folder says."""

import json
import os
from typing import Any, Dict, NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..system.errors import UsageError, require
from .source import read_model_json
from .vocabulary import TokenizerVocabulary, read_vocabulary


class WordPiece(NamedTuple):
    """BERT's tokenizer."""

    vocabulary: TokenizerVocabulary
    tokenizer: Tokenizer  # of plain text: special tokens are neither added nor recognized
    settings: Dict[str, Any]  # in the terms of tokenizer_config.json


def read_wordpiece(path: str, flag: str) -> WordPiece:
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


def settings_of(folder: str, vocabulary: TokenizerVocabulary, flag: str) -> Dict[str, Any]:
    """How text is normalized; raises a UsageError for word splitting that is not BERT's."""
    config = {}
    if os.path.exists(os.path.join(folder, "tokenizer_config.json")):
        config = read_model_json(folder, "tokenizer_config.json", flag)
    for name, assumed in (("do_basic_tokenize", True), ("word_tokenizer_type", "basic")):  # BertJapaneseTokenizer's
        if config.get(name, assumed) != assumed:
            raise UsageError(f"{flag}: {folder}/tokenizer_config.json: {name} {config[name]!r} found, expected "
                             f"{assumed!r}: only BERT's own word splitting is supported")
    return {
        # transformers' default where the file does not set it; for a bare vocab.txt, its tokens decide.
        "do_lower_case": config.get("do_lower_case", True) if config else not has_capitals(vocabulary),
        "strip_accents": config.get("strip_accents"),  # None = if lower-cased
        "tokenize_chinese_chars": config.get("tokenize_chinese_chars", True),
    }


def has_capitals(vocabulary: TokenizerVocabulary) -> bool:
    """Whether a vocabulary is cased; special tokens, BERT's [unused0] … and the <S> and <T> of some do not count."""
    ordinary = (token for token in vocabulary.tokens if not token.startswith(("[", "<")) and token not in
                vocabulary.specials.values())
    return any(token != token.lower() for token in ordinary)


def plain_tokenizer(file: str, flag: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json without its special tokens: "[SEP]" in a text must not end a sentence."""
    tokenizer = Tokenizer.from_file(file)  # older files lack the model's type
    if not isinstance(tokenizer.model, models.WordPiece):
        kind = type(tokenizer.model).__name__
        raise UsageError(f"{flag}: {file} is a tokenizer of type {kind}, expected WordPiece")
    unk = tokenizer.model.unk_token
    require(f"{flag}: {file}", f"unk_token {unk!r:.60}", unk in tokenizer.get_vocab(with_added_tokens=False),
            "a token of the model's vocabulary")
    content = json.loads(tokenizer.to_str())
    ordinary = [token for token in content["added_tokens"] if not token["special"]]  # added by users
    return Tokenizer.from_str(json.dumps(
        {**content, "added_tokens": ordinary, "post_processor": None, "truncation": None, "padding": None}
    ))


def new_tokenizer(vocabulary: TokenizerVocabulary, settings: Dict[str, Any]) -> Tokenizer:
    """BERT's tokenizer (Devlin et al. 2019): words of more than 100 characters are unknown."""
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
