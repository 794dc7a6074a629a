"""The tokenizer of a checkpoint or a corpus, as the files of a Hugging Face folder."""

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional

from tokenizers import AddedToken, Tokenizer, processors

from ..checkpoints.vocabulary import data_bin, first_difference
from ..system.atomic_files import read_bytes
from ..system.errors import UsageError
from .fast_tokenizer import fast_tokenizer
from .sentencepiece_model import read_tokenizer
from .vocabulary import SPECIALS, TokenizerVocabulary, json_bytes, read_vocabulary
from .wordpiece import read_wordpiece

TOKENIZER_FILE_NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json",
                        "added_tokens.json", "tokenizer.model")
BERT_NAMES = ("tokenizer.json", "vocab.txt")  # either one suffices for a Hugging Face tokenizer


class TokenizerFiles(NamedTuple):
    """A tokenizer as the files of a Hugging Face folder."""

    vocabulary: TokenizerVocabulary
    files: Dict[str, bytes]  # by name

    def with_pairs(self, separators_between: int) -> "TokenizerFiles":
        """The same tokenizer, joining pairs of texts as fairseq's `sentence_prediction` does: token type 0 throughout,
        and this many [SEP] between them."""
        tokenizer = Tokenizer.from_str(self.files["tokenizer.json"].decode())
        tokenizer.post_processor = template(self.vocabulary, separators_between)
        return self._replace(files={
            **self.files,
            "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
            # transformers' class for BERT would override the template
            "tokenizer_config.json": json_bytes({**json.loads(self.files["tokenizer_config.json"]),
                                              "tokenizer_class": "PreTrainedTokenizerFast"}),
        })


def template(
    vocabulary: TokenizerVocabulary, separators_between: int, second_type: int = 0
) -> processors.TemplateProcessing:
    """[CLS] A [SEP], and for pairs [CLS] A [SEP] B [SEP].

    Args:
        vocabulary: has the special tokens.
        separators_between: number of [SEP] between A and B.
        second_type: token type of B and its [SEP].
    """
    cls, sep = vocabulary.specials["cls"], vocabulary.specials["sep"]
    between = " ".join([sep] * separators_between)
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {between} $B:{second_type} {sep}:{second_type}",
        special_tokens=[(cls, vocabulary.id_of("cls")), (sep, vocabulary.id_of("sep"))],
    )


def find_tokenizer(path: Optional[str], checkpoint: str, state: dict) -> str:
    """The path of a checkpoint's tokenizer, as `read_tokenizer_files` takes it.

    Args:
        path: the tokenizer's file or folder; None = look in the checkpoint's folder and around its training data.
        checkpoint: its path.
        state: its content.
    Raises:
        UsageError: none found.
    """
    bin_folder = data_bin(state, checkpoint)
    places = [path] if path else [os.path.dirname(checkpoint) or ".", *parents(bin_folder)]
    for place in places:
        *bert_files_there, sentencepiece_file = [os.path.join(place, name) for name in (*BERT_NAMES, "tokenizer.model")]
        if os.path.isfile(place):
            return os.path.dirname(place) or "." if place.endswith("tokenizer.json") else place
        if any(map(os.path.exists, bert_files_there)):
            return place
        if os.path.exists(sentencepiece_file):
            return sentencepiece_file
    raise UsageError(f"--tokenizer: none found in {', '.join(places)}, expected tokenizer.model, tokenizer.json or "
                     "vocab.txt")


def parents(folder: str) -> List[str]:
    """A data-bin folder and the two above it: corpus/bin/shard0 is two levels below the corpus."""
    return [os.path.normpath(os.path.join(folder, up)) for up in (".", "..", "../..")] if folder else []


def read_tokenizer_files(path: str, symbols: List[str], positions: int) -> TokenizerFiles:
    """The files of a model's tokenizer.

    Args:
        path: a Hugging Face folder, a vocab.txt or a SentencePiece model.
        symbols: of the model's dictionary.
        positions: the model's longest input, in tokens.
    Raises:
        UsageError: no tokenizer, or one of another vocabulary.
    """
    if os.path.isdir(path) or path.endswith(".txt"):
        tokenizer = with_length(bert_files(path, "--tokenizer"), positions)
    else:
        tokenizer = sentencepiece_files(path, positions)
    if tokenizer.vocabulary.symbols() != symbols:
        difference = first_difference(tokenizer.vocabulary.symbols(), symbols)
        raise UsageError(f"--tokenizer: {path} has another vocabulary than the checkpoint: {difference}")
    return tokenizer


def with_length(tokenizer: TokenizerFiles, positions: int) -> TokenizerFiles:
    """The same files with a model_max_length of at most `positions`, the length for `truncation=True`."""
    settings = json.loads(tokenizer.files["tokenizer_config.json"])
    length = min(settings.get("model_max_length") or positions, positions)
    if settings.get("model_max_length") == length:
        return tokenizer
    config = json_bytes({**settings, "model_max_length": length})
    return tokenizer._replace(files={**tokenizer.files, "tokenizer_config.json": config})


def bert_files(path: str, flag: str) -> TokenizerFiles:
    """The files of a Hugging Face tokenizer unchanged; missing ones are added.

    Args:
        path: a Hugging Face folder, or a vocab.txt.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: see `read_vocabulary` and `read_wordpiece`.
    """
    folder = path if os.path.isdir(path) else None
    files = {name: read_bytes(os.path.join(folder, name)) for name in TOKENIZER_FILE_NAMES
             if folder and os.path.exists(os.path.join(folder, name))}
    vocabulary = read_vocabulary(path, flag)
    if "tokenizer.json" not in files:
        wordpiece = read_wordpiece(path, flag)
        tokenizer = with_specials(wordpiece.tokenizer, vocabulary)
        tokenizer.post_processor = template(vocabulary, 1, second_type=1)
        files["vocab.txt"] = "".join(f"{token}\n" for token in vocabulary.tokens).encode()
        files["tokenizer.json"] = tokenizer.to_str(pretty=True).encode()
        files.setdefault("tokenizer_config.json", tokenizer_config(vocabulary, "BertTokenizer", **wordpiece.settings))
    files.setdefault("tokenizer_config.json", tokenizer_config(vocabulary, "PreTrainedTokenizerFast"))
    return TokenizerFiles(vocabulary, files)


def sentencepiece_files(path: str, positions: int) -> TokenizerFiles:
    """The files of a fast tokenizer that encodes as a SentencePiece model does, and the model itself."""
    model = read_tokenizer(path)
    specials = {special: ours for special, (ours, _) in SPECIALS.items()}
    first, last = [specials[special] for special in ("cls", "pad", "sep", "unk")], specials["mask"]
    symbols = [*first, *(model.names[i] for i in model.dictionary_ids), last]
    vocabulary = TokenizerVocabulary(symbols, specials)
    tokenizer = with_specials(fast_tokenizer(model.model, symbols), vocabulary)
    tokenizer.post_processor = template(vocabulary, 1)
    return TokenizerFiles(vocabulary, {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": tokenizer_config(vocabulary, "PreTrainedTokenizerFast", model_max_length=positions),
        "tokenizer.model": model.model,
    })


def with_specials(tokenizer: Tokenizer, vocabulary: TokenizerVocabulary) -> Tokenizer:
    """The tokenizer itself, which now recognizes the special tokens in text."""
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in vocabulary.specials.values()])
    return tokenizer


def tokenizer_config(vocabulary: TokenizerVocabulary, kind: str, **settings: Any) -> bytes:
    """The content of tokenizer_config.json. kind: transformers' name of the class."""
    specials = {f"{special}_token": name for special, name in vocabulary.specials.items()}
    return json_bytes({"tokenizer_class": kind, **specials, **settings})
