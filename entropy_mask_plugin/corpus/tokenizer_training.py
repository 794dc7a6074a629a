"""Training a SentencePiece model whose dictionary has exactly the requested size; see
`huggingface.sentencepiece_model`."""

import io
import re
from collections.abc import Iterable
from typing import Any, Dict

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ..huggingface.sentencepiece_model import FAIRSEQ_SPECIALS
from ..system.errors import UsageError

SCORE_UNIT = 2.0**-8  # exact in fp32 up to a sum of 2**16: a line of some 8,000 tokens
TRAINING: Dict[str, Any] = dict(
    model_type="unigram",  # encodes four times as fast as bpe, to as many tokens, and trains in seconds
    control_symbols=["<pad>", "<mask>"],
    # SentencePiece removes its special symbols from the training text: their letters may occur nowhere else.
    required_chars="".join(sorted(set("".join(FAIRSEQ_SPECIALS)))),
    max_sentence_length=1 << 30,  # bytes; the default of 4192 silently drops long paragraphs
    num_threads=16,  # sums over threads affect the result, so this is not the number of cores
    minloglevel=2,
)


def train_tokenizer(lines: Iterable[str], vocab_size: int, seed: int) -> bytes:
    """The bytes of a SentencePiece model: the same for the same arguments on any number of cores.

    Args:
        lines: training text.
        vocab_size: entries of fairseq's dictionary.
        seed: of SentencePiece's random numbers.
    Raises:
        UsageError: the size is too large or too small for the text.
    """
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(seed)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=vocab_size, **TRAINING
        )
    except (RuntimeError, OSError) as error:
        raise UsageError(f"--vocab-size {vocab_size}: {reason_of_failure(str(error))}") from error
    return with_exact_scores(model.getvalue())


def with_exact_scores(model: bytes) -> bytes:
    """The same model with scores rounded to multiples of SCORE_UNIT.

    SentencePiece adds scores in fp32, other implementations in fp64. Sums of such multiples are exact in both, so that
    all choose the same of two nearly equal segmentations.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # pyright: ignore[reportAttributeAccessIssue]
    for piece in proto.pieces:
        piece.score = round(piece.score / SCORE_UNIT) * SCORE_UNIT
    return proto.SerializeToString(deterministic=True)


def reason_of_failure(message: str) -> str:
    """SentencePiece's message, in our terms if it is about the size."""
    too_high = re.search(r"size too high .*<= (\d+)", message)
    too_low = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_high:
        return f"too large for this text, expected at most {too_high[1]}"
    if too_low:
        return f"too small for the characters of this text, expected at least {too_low[1]}"
    return "SentencePiece cannot train on this text (" + " ".join(message.split())[:300] + ")"
