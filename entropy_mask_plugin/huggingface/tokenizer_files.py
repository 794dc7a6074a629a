"""The tokenizer of a checkpoint or a corpus, as the files of a Hugging Face folder."""

import json
import os
from typing import Dict, NamedTuple

from tokenizers import AddedToken, Tokenizer, processors

from ..checkpoints.vocabulary import data_bin, first_difference
from ..system.errors import UsageError
from .fast_tokenizer import fast_tokenizer
from .sentencepiece_model import read_tokenizer
from .vocabulary import SPECIALS, Vocabulary, as_json, read_vocabulary
from .wordpiece import read_wordpiece

NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json",
         "tokenizer.model")
BERT_NAMES = ("tokenizer.json", "vocab.txt")  # one of them makes a Hugging Face tokenizer


class TokenizerFiles(NamedTuple):
    vocabulary: Vocabulary
    files: Dict[str, bytes]  # by name

    def with_pairs(self, separators_between):
        """The same, for texts in pairs as fairseq's `sentence_prediction` joins them, all of token type 0."""
        tokenizer = Tokenizer.from_str(self.files["tokenizer.json"].decode())
        tokenizer.post_processor = template(self.vocabulary, separators_between)
        return self._replace(files={
            **self.files,
            "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
            # transformers' own class for BERT would join pairs its own way again
            "tokenizer_config.json": as_json({**json.loads(self.files["tokenizer_config.json"]),
                                              "tokenizer_class": "PreTrainedTokenizerFast"}),
        })


def template(vocabulary, separators_between, second_type=0):
    """[CLS] A [SEP], and for pairs [CLS] A [SEP] B [SEP] with as many [SEP] in the middle as are asked for."""
    cls, sep = vocabulary.specials["cls"], vocabulary.specials["sep"]
    between = " ".join([sep] * separators_between)
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {between} $B:{second_type} {sep}:{second_type}",
        special_tokens=[(cls, vocabulary.id_of("cls")), (sep, vocabulary.id_of("sep"))],
    )


def find_tokenizer(given, checkpoint, state):
    """The path of a checkpoint's tokenizer: the one given, or beside the checkpoint, or beside its training data.

    Raises:
        UsageError: none there.
    """
    bin_folder = data_bin(state, checkpoint)
    places = [given] if given else [os.path.dirname(checkpoint) or ".", *parents(bin_folder)]
    for place in places:
        found = [os.path.join(place, name) for name in (*BERT_NAMES, "tokenizer.model")]
        if os.path.isfile(place):
            return os.path.dirname(place) or "." if place.endswith("tokenizer.json") else place
        if any(map(os.path.exists, found[:2])):
            return place
        if os.path.exists(found[2]):
            return found[2]
    raise UsageError(f"--tokenizer: none found in {', '.join(places)}, expected tokenizer.model, tokenizer.json or "
                     "vocab.txt")


def parents(folder):
    """A data-bin folder and the two above it: corpus/bin/shard0 lies two below the corpus."""
    return [os.path.normpath(os.path.join(folder, up)) for up in (".", "..", "../..")] if folder else []


def read_tokenizer_files(path, symbols, positions):
    """The files of the tokenizer at `path` for a model whose dictionary is `symbols`, its longest text `positions`.

    Raises:
        UsageError: no tokenizer, or one of another vocabulary.
    """
    if os.path.isdir(path) or path.endswith(".txt"):
        found = with_length(bert_files(path, "--tokenizer"), positions)
    else:
        found = sentencepiece_files(path, positions)
    if found.vocabulary.symbols() != symbols:
        difference = first_difference(found.vocabulary.symbols(), symbols)
        raise UsageError(f"--tokenizer: {path} has another vocabulary than the checkpoint: {difference}")
    return found


def with_length(found, positions):
    """The same files, model_max_length not above the model's positions: `truncation=True` goes by it."""
    settings = json.loads(found.files["tokenizer_config.json"])
    length = min(settings.get("model_max_length") or positions, positions)
    if settings.get("model_max_length") == length:
        return found
    return found._replace(files={**found.files, "tokenizer_config.json": as_json({**settings,
                                                                                  "model_max_length": length})})


def bert_files(path, flag):
    """A Hugging Face tokenizer as it came, completed where it is a vocab.txt alone."""
    folder = path if os.path.isdir(path) else None
    files = {name: content(os.path.join(folder, name)) for name in NAMES if folder and
             os.path.exists(os.path.join(folder, name))}
    vocabulary = read_vocabulary(path, flag)
    if "tokenizer.json" not in files:
        wordpiece = read_wordpiece(path, flag)
        tokenizer = with_specials(wordpiece.tokenizer, vocabulary)
        tokenizer.post_processor = template(vocabulary, 1, second_type=1)
        files["vocab.txt"] = "".join(f"{token}\n" for token in vocabulary.tokens).encode()
        files["tokenizer.json"] = tokenizer.to_str(pretty=True).encode()
        files.setdefault("tokenizer_config.json", configuration(vocabulary, "BertTokenizer", **wordpiece.settings))
    files.setdefault("tokenizer_config.json", configuration(vocabulary, "PreTrainedTokenizerFast"))
    return TokenizerFiles(vocabulary, files)


def sentencepiece_files(path, positions):
    model = read_tokenizer(path)
    specials = {special: ours for special, (ours, _) in SPECIALS.items()}
    first, last = [specials[special] for special in ("cls", "pad", "sep", "unk")], specials["mask"]
    symbols = [*first, *(model.names[i] for i in model.dictionary_ids), last]
    vocabulary = Vocabulary(symbols, specials)
    tokenizer = with_specials(fast_tokenizer(model.model, symbols), vocabulary)
    tokenizer.post_processor = template(vocabulary, 1)
    return TokenizerFiles(vocabulary, {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": configuration(vocabulary, "PreTrainedTokenizerFast", model_max_length=positions),
        "tokenizer.model": model.model,
    })


def with_specials(tokenizer, vocabulary):
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in vocabulary.specials.values()])
    return tokenizer


def configuration(vocabulary, kind, **settings):
    specials = {f"{special}_token": name for special, name in vocabulary.specials.items()}
    return as_json({"tokenizer_class": kind, **specials, **settings})


def content(path):
    with open(path, "rb") as file:
        return file.read()
