"""Token ids: Hugging Face's and fairseq's order differ by a fixed permutation.

    Hugging Face:  any order, the five specials anywhere ([PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103 in BERT)
    fairseq:       <s> <pad> </s> <unk>, the other tokens in Hugging Face's order, <mask>
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Dict, List, NamedTuple, Optional

from tokenizers import Tokenizer

from ..system.errors import UsageError, require
from .source import read_model_json

# Role of each special token: (fairseq's symbol, BERT's token), in fairseq's order.
SPECIALS = {"cls": ("<s>", "[CLS]"), "pad": ("<pad>", "[PAD]"), "sep": ("</s>", "[SEP]"), "unk": ("<unk>", "[UNK]"),
            "mask": ("<mask>", "[MASK]")}


class TokenizerVocabulary(NamedTuple):
    """The tokens of a Hugging Face tokenizer."""

    tokens: List[str]  # by Hugging Face's id
    specials: Dict[str, str]  # "cls" -> "[CLS]" …

    def id_of(self, special: str) -> int:
        """Hugging Face's id of a special token. special: a key of SPECIALS."""
        return self.tokens.index(self.specials[special])

    def rows(self) -> List[int]:
        """Hugging Face's ids in fairseq's order: ours = theirs[rows], theirs[rows] = ours."""
        first = [self.id_of(special) for special in ("cls", "pad", "sep", "unk")]
        last = [self.id_of("mask")]
        middle = sorted(set(range(len(self.tokens))) - {*first, *last})
        return first + middle + last

    def symbols(self) -> List[str]:
        """The tokens as fairseq's dictionary names them, in its order."""
        names = {self.specials[special]: ours for special, (ours, _) in SPECIALS.items()}
        return [names.get(self.tokens[i], symbol_of(self.tokens[i])) for i in self.rows()]

    def dictionary(self, counts: Optional[Mapping[str, int]] = None) -> str:
        """The content of dict.txt, which has neither the four symbols that fairseq prepends nor the <mask> that the
        task appends. counts: {symbol: occurrences}; 0 where it has none."""
        return "".join(f"{symbol} {(counts or {}).get(symbol, 0)}\n" for symbol in self.symbols()[4:-1])


def symbol_of(token: str) -> str:
    """fairseq's symbol for a token. fairseq splits at white space, so tokens that contain some are escaped: U+2028
    becomes \\u2028."""
    return token if token.split() == [token] else ascii(token)[1:-1].replace(" ", "\\x20")


def read_vocabulary(path: str, flag: str) -> TokenizerVocabulary:
    """The vocabulary of a folder (tokenizer.json, else vocab.txt) or of a vocab.txt.

    Args:
        path: the folder or file.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: missing; gaps or repetitions; a special token is missing; a token that fairseq would misread.
    """
    if os.path.isfile(path):
        return checked(tokens_of_text(path, flag), {}, path, flag)
    for name, read in (("tokenizer.json", tokens_of_json), ("vocab.txt", tokens_of_text)):
        file = os.path.join(path, name)
        if os.path.exists(file):
            return checked(read(file, flag), special_names(path, flag), file, flag)
    raise UsageError(f"{flag}: {path} has no vocabulary, expected tokenizer.json or vocab.txt")


def tokens_of_text(file: str, flag: str) -> List[str]:
    """The tokens of a vocab.txt, by id."""
    try:
        with open(file, encoding="utf-8") as lines:
            return [line.rstrip("\n") for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag}: {file} cannot be read ({error}), expected one token a line in UTF-8") from error


def tokens_of_json(file: str, flag: str) -> List[str]:
    """The tokens of a tokenizer.json, added ones included, by id; raises a UsageError for gaps in the ids."""
    try:
        vocabulary = Tokenizer.from_file(file).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises nothing more precise
        raise UsageError(f"{flag}: {file} is not a tokenizer ({error})") from error
    ids = sorted(vocabulary.values())
    if ids != list(range(len(ids))):
        gap = next((expected for expected, i in enumerate(ids) if expected != i), len(ids))
        raise UsageError(f"{flag}: {file}: no token or several have id {gap}, expected one for each id up to {ids[-1]}")
    return sorted(vocabulary, key=vocabulary.__getitem__)


def special_names(folder: str, flag: str) -> Dict[str, str]:
    """The special tokens that tokenizer_config.json names: {"cls": "[CLS]", …}; empty without such a file."""
    if not os.path.exists(os.path.join(folder, "tokenizer_config.json")):
        return {}
    config = read_model_json(folder, "tokenizer_config.json", flag)
    tokens = {special: config.get(f"{special}_token") for special in SPECIALS}
    names: Dict[str, Any] = {special: token.get("content") if isinstance(token, dict) else token
                             for special, token in tokens.items() if token}
    file = os.path.join(folder, "tokenizer_config.json")
    for special, name in names.items():
        require(f"{flag}: {file}", f"{special}_token {name!r:.60}", isinstance(name, str), "a token")
    return names


def checked(tokens: List[str], names: Dict[str, str], file: str, flag: str) -> TokenizerVocabulary:
    """The vocabulary, with BERT's names for the special tokens that `names` lacks; raises as `read_vocabulary`."""
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
    return TokenizerVocabulary(tokens, specials)


def json_bytes(content: Any) -> bytes:
    """Indented JSON in UTF-8."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
