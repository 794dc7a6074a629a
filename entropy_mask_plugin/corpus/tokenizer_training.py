"""Training a SentencePiece model whose dictionary has exactly the size asked for; see
`huggingface.sentencepiece_model`."""

import io
import re

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ..huggingface.sentencepiece_model import FAIRSEQ_SPECIALS
from ..system.errors import UsageError

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
