"""Which id is which token: Hugging Face's order and fairseq's differ by a fixed permutation.

    Hugging Face:  any order, the five specials anywhere ([PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103 in BERT)
    fairseq:       <s> <pad> </s> <unk>, the other tokens in Hugging Face's order, <mask>
"""

import json
import os
from typing import Dict, List, NamedTuple

from tokenizers import Tokenizer

from ..system.errors import UsageError
from .source import read_json

# fairseq's symbols in its order, with BERT's names.
SPECIALS = {"cls": ("<s>", "[CLS]"), "pad": ("<pad>", "[PAD]"), "sep": ("</s>", "[SEP]"), "unk": ("<unk>", "[UNK]"),
            "mask": ("<mask>", "[MASK]")}


class Vocabulary(NamedTuple):
    tokens: List[str]  # by Hugging Face's id
    specials: Dict[str, str]  # "cls" -> "[CLS]" …

    def id_of(self, special):
        return self.tokens.index(self.specials[special])

    def rows(self):
        """Hugging Face's ids in fairseq's order: ours = theirs[rows], theirs[rows] = ours."""
        first = [self.id_of(special) for special in ("cls", "pad", "sep", "unk")]
        last = [self.id_of("mask")]
        middle = sorted(set(range(len(self.tokens))) - {*first, *last})
        return first + middle + last

    def symbols(self):
        """The tokens as fairseq's dictionary names them, in its order."""
        names = {self.specials[special]: ours for special, (ours, _) in SPECIALS.items()}
        return [names.get(self.tokens[i], symbol_of(self.tokens[i])) for i in self.rows()]

    def dictionary(self, counts=None):
        """dict.txt, without the four symbols that fairseq puts first and the <mask> that the task appends."""
        return "".join(f"{symbol} {(counts or {}).get(symbol, 0)}\n" for symbol in self.symbols()[4:-1])


def symbol_of(token):
    """fairseq separates symbols at white space, of which some vocabularies have a token: U+2028 becomes \\u2028."""
    return token if token.split() == [token] else ascii(token)[1:-1].replace(" ", "\\x20")


def read_vocabulary(path, flag):
    """The vocabulary of a folder (tokenizer.json, else vocab.txt) or of a vocab.txt.

    Raises:
        UsageError: none there, gaps or repetitions, a special token missing, a token that fairseq would read otherwise.
    """
    if os.path.isfile(path):
        return checked(tokens_of_text(path, flag), {}, path, flag)
    for name, read in (("tokenizer.json", tokens_of_json), ("vocab.txt", tokens_of_text)):
        file = os.path.join(path, name)
        if os.path.exists(file):
            return checked(read(file, flag), special_names(path, flag), file, flag)
    raise UsageError(f"{flag}: {path} has no vocabulary, expected tokenizer.json or vocab.txt")


def tokens_of_text(file, flag):
    try:
        with open(file, encoding="utf-8") as lines:
            return [line.rstrip("\n") for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag}: {file} cannot be read ({error}), expected one token a line in UTF-8") from error


def tokens_of_json(file, flag):
    try:
        vocabulary = Tokenizer.from_file(file).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises nothing more precise
        raise UsageError(f"{flag}: {file} is no tokenizer ({error})") from error
    ids = sorted(vocabulary.values())
    if ids != list(range(len(ids))):
        gap = next((i for i, found in enumerate(ids) if i != found), len(ids))
        raise UsageError(f"{flag}: {file}: no token or several have id {gap}, expected one for each id up to {ids[-1]}")
    return sorted(vocabulary, key=vocabulary.get)


def special_names(folder, flag):
    """What tokenizer_config.json calls them, where it says so: {"cls": "[CLS]", …}."""
    if not os.path.exists(os.path.join(folder, "tokenizer_config.json")):
        return {}
    config = read_json(folder, "tokenizer_config.json", flag)
    names = {special: config.get(f"{special}_token") for special in SPECIALS}
    return {special: name["content"] if isinstance(name, dict) else name for special, name in names.items() if name}


def checked(tokens, names, file, flag):
    specials = {special: names.get(special, bert) for special, (_, bert) in SPECIALS.items()}
    if len(set(specials.values())) < len(specials):
        raise UsageError(f"{flag}: {file}: one token is several of {', '.join(specials)}, expected five different ones")
    for special, name in specials.items():
        if name not in tokens:
            raise UsageError(f"{flag}: {file} has no {name}, expected a {special} token")
    seen = set()
    for i, token in enumerate(tokens):
        if symbol_of(token) in seen:
            raise UsageError(f"{flag}: {file}: {token!r} found again at id {i}, expected each token once")
        seen.add(symbol_of(token))
        if not token:
            raise UsageError(f"{flag}: {file}: an empty token at id {i}, expected none")
        if token in (ours for ours, _ in SPECIALS.values()) and token not in specials.values():
            raise UsageError(f"{flag}: {file}: {token} is an ordinary token, and fairseq's name of a special one")
    return Vocabulary(tokens, specials)


def as_json(content):
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
