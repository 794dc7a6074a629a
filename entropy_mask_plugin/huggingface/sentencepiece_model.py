"""A SentencePiece model whose pieces, with fairseq's specials, make a dictionary.

    SentencePiece:  <unk> <s> </s> <pad> <mask>  + N pieces      (the first is "unknown", the next four "control")
    fairseq:        <s> <pad> </s> <unk>  + the N pieces of dict.txt +  <mask>

Control pieces are never the result of encoding: text that contains "<mask>" becomes "<", "mask", ">" or smaller pieces.
"""

import functools

import sentencepiece

from ..system.errors import UsageError

FAIRSEQ_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FEWEST_ENTRIES = len(FAIRSEQ_SPECIALS) + 1


class SentencePieceTokenizer:
    """A checked model. `names[i]` is how piece i is written in encoded text."""

    def __init__(self, model, origin):
        """model: the bytes of the file; origin: what to name in an error."""
        self.model, self.origin = model, origin
        self.processor = loaded(model, origin)
        self.unk = self.processor.unk_id()
        self.names = [self.processor.id_to_piece(i) for i in range(len(self.processor))]
        self.names[self.unk] = "<unk>"  # it may have another name, such as [UNK]
        check_names([self.names[i] for i in self.dictionary_ids], origin)

    @functools.cached_property
    def dictionary_ids(self):
        """The pieces of dict.txt, in the model's order."""
        never_encoded = self.processor.is_control
        return [i for i in range(len(self.names)) if i != self.unk and not never_encoded(i)]

    @property
    def dictionary_size(self):
        return len(self.dictionary_ids) + len(FAIRSEQ_SPECIALS)

    def dictionary(self, counts):
        """dict.txt. counts: {piece id: occurrences in the training text}."""
        return "".join(f"{self.names[i]} {counts.get(i, 0)}\n" for i in self.dictionary_ids)

    @property
    def content(self):
        return self.model

    @property
    def files(self):
        """{name: bytes}: the model, and its pieces and scores as SentencePiece itself writes them."""
        score, piece = self.processor.get_score, self.processor.id_to_piece
        pieces = "".join(f"{piece(i)}\t{score(i):g}\n" for i in range(len(self.names)))
        return {"tokenizer.model": self.model, "tokenizer.vocab": pieces.encode()}

    def encode(self, lines, workers):
        """Piece ids of each line. SentencePiece's own threads share one model, unlike a pool of processes."""
        return self.processor.encode(lines, num_threads=workers)


def loaded(model, origin):
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model or b"empty")
    except RuntimeError as error:
        raise UsageError(f"{origin}: not a SentencePiece model, expected a tokenizer.model") from error
    return processor


def check_names(names, origin):
    """Would fairseq read each piece as one symbol that is not one of its own?"""
    for name in names:
        if name in FAIRSEQ_SPECIALS:
            raise UsageError(
                f"{origin}: {name} is an ordinary piece, expected a control symbol: "
                "text that contains it would become fairseq's special symbol"
            )
        if name.split() != [name]:
            raise UsageError(f"{origin}: the piece {name!r} contains white space, at which fairseq separates pieces")


def read_tokenizer(path):
    """The file given with --tokenizer."""
    try:
        with open(path, "rb") as file:
            model = file.read()
    except OSError as error:
        raise UsageError(f"--tokenizer {path}: {error.strerror}, expected a SentencePiece model") from error
    return SentencePieceTokenizer(model, f"--tokenizer {path}")
