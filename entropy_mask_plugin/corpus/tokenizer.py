"""A SentencePiece model whose pieces, with fairseq's specials, make a dictionary of exactly the size asked for.

    SentencePiece:  <unk> <s> </s> <pad> <mask>  + N pieces      (the first is "unknown", the next four "control")
    fairseq:        <s> <pad> </s> <unk>  + the N pieces of dict.txt +  <mask>

Control pieces are never the result of encoding: text that contains "<mask>" becomes "<", "mask", ">" or smaller pieces.
"""

import functools
import io
import re

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ..errors import UsageError

FAIRSEQ_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FEWEST_ENTRIES = len(FAIRSEQ_SPECIALS) + 1
SCORE_UNIT = 2.0**-8  # exact in fp32 up to a sum of 2**16: a line of some 8,000 pieces
TRAINING = dict(
    model_type="unigram",  # encodes four times as fast as bpe in as many pieces, and trains in seconds
    control_symbols=["<pad>", "<mask>"],
    # SentencePiece cuts its specials out of the text it trains on: their letters may be nowhere else.
    required_chars="".join(sorted(set("".join(FAIRSEQ_SPECIALS)))),
    max_sentence_length=1 << 30,  # bytes; the default of 4192 leaves long paragraphs out without a word
    num_threads=16,  # the sums over threads are part of the result, so this is not the number of cores
    minloglevel=2,
)


def train_tokenizer(lines, vocab_size, seed):
    """Returns the bytes of a model. The same lines, size and seed give the same bytes on any number of cores."""
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(seed)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=vocab_size, **TRAINING
        )
    except (RuntimeError, OSError) as error:
        raise UsageError(f"--vocab-size {vocab_size}: {reason_of_failure(str(error))}") from error
    return with_exact_scores(model.getvalue())


def with_exact_scores(model):
    """The same model, its scores rounded to multiples of SCORE_UNIT.

    SentencePiece adds scores in fp32, other implementations of its models in fp64: sums of such multiples are exact in
    both, so that all agree which of two nearly equal segmentations is the better.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for piece in proto.pieces:
        piece.score = round(piece.score / SCORE_UNIT) * SCORE_UNIT
    return proto.SerializeToString(deterministic=True)


def reason_of_failure(message):
    """SentencePiece's message, in our terms where it is about the size."""
    too_high = re.search(r"size too high .*<= (\d+)", message)
    too_low = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_high:
        return f"too large for this text, expected at most {too_high[1]}"
    if too_low:
        return f"too small for the characters of this text, expected at least {too_low[1]}"
    return "SentencePiece cannot train on this text (" + " ".join(message.split())[:300] + ")"


class Tokenizer:
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
    return Tokenizer(model, f"--tokenizer {path}")
