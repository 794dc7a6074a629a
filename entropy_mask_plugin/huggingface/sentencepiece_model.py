"""A SentencePiece model whose subword tokens, with fairseq's special symbols, make a dictionary.

    SentencePiece:  <unk> <s> </s> <pad> <mask>  + N tokens      (the first is "unknown", the next four "control")
    fairseq:        <s> <pad> </s> <unk>  + the N tokens of dict.txt +  <mask>

Text is never encoded to control symbols: "<mask>" in a text becomes "<", "mask", ">" or smaller tokens.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Dict, List

import sentencepiece

from ..system.atomic_files import read_bytes
from ..system.errors import UsageError

FAIRSEQ_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FEWEST_ENTRIES = len(FAIRSEQ_SPECIALS) + 1


class SentencePieceTokenizer:
    """A checked model. `names[i]` is how token i is written in encoded text.

    Args:
        model: the bytes of the file.
        origin: names the model in messages.
    Raises:
        UsageError: no SentencePiece model, or one with tokens that fairseq would misread.
    """

    def __init__(self, model: bytes, origin: str):
        self.model, self.origin = model, origin
        self.processor = loaded(model, origin)
        self.unk = self.processor.unk_id()
        self.names = names_of_tokens(self.processor, origin)
        self.names[self.unk] = "<unk>"  # it may have another name, such as [UNK]
        check_names([self.names[i] for i in self.dictionary_ids], origin)

    @functools.cached_property
    def dictionary_ids(self) -> List[int]:
        """The ids of the tokens of dict.txt, in the model's order."""
        never_encoded = self.processor.is_control
        return [i for i in range(len(self.names)) if i != self.unk and not never_encoded(i)]

    @property
    def dictionary_size(self) -> int:
        """Entries of fairseq's dictionary, special symbols included."""
        return len(self.dictionary_ids) + len(FAIRSEQ_SPECIALS)

    def dictionary(self, counts: Mapping[int, int]) -> str:
        """The content of dict.txt. counts: {token id: occurrences in the training text}."""
        return "".join(f"{self.names[i]} {counts.get(i, 0)}\n" for i in self.dictionary_ids)

    @property
    def content(self) -> bytes:
        """What identifies the tokenizer."""
        return self.model

    @property
    def files(self) -> Dict[str, bytes]:
        """{name: content}: the model, and its tokens and scores as SentencePiece writes them."""
        score, piece = self.processor.get_score, self.processor.id_to_piece
        pieces = "".join(f"{piece(i)}\t{score(i):g}\n" for i in range(len(self.names)))
        return {"tokenizer.model": self.model, "tokenizer.vocab": pieces.encode()}

    def encode(self, lines: Sequence[str], workers: int) -> List[List[int]]:
        """The token ids of each line. workers: threads, which share one model, unlike a pool of processes."""
        return self.processor.encode(lines, num_threads=workers)


def loaded(model: bytes, origin: str) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece's own object; raises a UsageError if the bytes are no model."""
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model or b"empty")
    except RuntimeError as error:
        raise UsageError(f"{origin}: not a SentencePiece model, expected a tokenizer.model") from error
    return processor


def names_of_tokens(processor: sentencepiece.SentencePieceProcessor, origin: str) -> List[str]:
    """The tokens by id; raises a UsageError where one is not UTF-8."""
    try:
        return [processor.id_to_piece(i) for i in range(len(processor))]
    except UnicodeDecodeError as error:
        raise UsageError(f"{origin}: a token that is not UTF-8 found ({error.reason}), expected text") from error


def check_names(names: Sequence[str], origin: str) -> None:
    """Raise a UsageError unless fairseq would read each token as one symbol that is not special."""
    for name in names:
        if name in FAIRSEQ_SPECIALS:
            raise UsageError(
                f"{origin}: {name} is an ordinary token, expected a control symbol: "
                "text that contains it would become fairseq's special symbol"
            )
        if name.split() != [name]:
            raise UsageError(f"{origin}: the token {name!r} contains white space, at which fairseq separates tokens")


def read_tokenizer(path: str) -> SentencePieceTokenizer:
    """The SentencePiece model that --tokenizer names.

    Raises:
        UsageError: it cannot be read, or see `SentencePieceTokenizer`.
    """
    try:
        model = read_bytes(path)
    except OSError as error:
        raise UsageError(f"--tokenizer {path}: {error.strerror}, expected a SentencePiece model") from error
    return SentencePieceTokenizer(model, f"--tokenizer {path}")
