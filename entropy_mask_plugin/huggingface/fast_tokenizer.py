"""A SentencePiece model as a fast tokenizer that gives the same ids (test_huggingface_tokenizers.py compares them).

    text -> normalizer -> spaces become ▁ -> unigram or bpe -> <s> … </s>
"""

from typing import Any, List

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..system.errors import UsageError

SPACE = "▁"  # how SentencePiece writes it
UNIGRAM, BPE = 1, 2  # of SentencePiece's TrainerSpec.ModelType
NORMAL, USER_DEFINED = 1, 4  # of its SentencePiece.Type
# NFKC would change this character and SentencePiece's nmt_nfkc does not: a private-use character stands in for it.
TILDE, SHELTER = "～", "\U0010fffd"


def fast_tokenizer(model: bytes, symbols: List[str]) -> Tokenizer:
    """Convert a SentencePiece model.

    Args:
        model: bytes of a SentencePiece model.
        symbols: fairseq's dictionary with <mask>: the vocabulary of the new tokenizer, in the order of its ids.
    Returns:
        a tokenizer of plain text, without special tokens.
    Raises:
        UsageError: a kind of model that `tokenizers` cannot reproduce.
    """
    proto = proto_of(model)
    refuse_unlike(proto)
    tokenizer = Tokenizer(unigram(proto, symbols) if proto.trainer_spec.model_type == UNIGRAM else bpe(proto, symbols))
    tokenizer.normalizer = normalizer(proto.normalizer_spec)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend(proto), split=spaces_only_in_front(proto))
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend(proto))
    return tokenizer


def proto_of(model: bytes) -> Any:
    """The model as a protocol buffer, which Python reads more strictly than SentencePiece does."""
    try:
        return sentencepiece_model_pb2.ModelProto.FromString(model)  # pyright: ignore[reportAttributeAccessIssue]
    except DecodeError as error:
        raise UsageError(f"--tokenizer: a damaged SentencePiece model found ({error}), expected a whole one") from error


def refuse_unlike(proto: Any) -> None:
    """Raise a UsageError for a model that `tokenizers` cannot reproduce."""
    trainer, normalizer_spec = proto.trainer_spec, proto.normalizer_spec
    reasons = {
        "its type is neither unigram nor bpe": trainer.model_type not in (UNIGRAM, BPE),
        "it has user-defined symbols": any(piece.type == USER_DEFINED for piece in proto.pieces),
        "it marks the end of words, not their beginning": trainer.treat_whitespace_as_suffix,
        "it does not mark spaces": not normalizer_spec.escape_whitespaces,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UsageError(f"--tokenizer: this SentencePiece model cannot become a fast tokenizer: {reason}")


def prepend(proto: Any) -> str:
    """Where a space is put before the text, in the terms of `Metaspace`."""
    return "first" if proto.normalizer_spec.add_dummy_prefix else "never"


def spaces_only_in_front(proto: Any) -> bool:
    """Whether no subword spans words: these can then be encoded one by one, which is faster."""
    return not any(SPACE in piece.piece[1:] for piece in proto.pieces if piece.type == NORMAL)


def normalizer(spec: Any) -> normalizers.Normalizer:
    """SentencePiece's own table. `tokenizers` applies it to whole grapheme clusters, and so misses some pairs of a
    letter and an accent; for tables based on NFKC, a preceding NFKC leaves no such pairs."""
    steps = []
    if spec.precompiled_charsmap:
        try:
            steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
        except Exception as error:  # tokenizers raises nothing more precise
            raise UsageError(f"--tokenizer: damaged normalization of a SentencePiece model ({error})") from error
    if "nfkc" in spec.name:
        steps.insert(0, normalizers.NFKC())
    if spec.name.startswith("nmt_"):
        steps = [normalizers.Replace(TILDE, SHELTER), *steps, normalizers.Replace(SHELTER, TILDE)]
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False, right=True)]
    return normalizers.Sequence(steps)


def unigram(proto: Any, symbols: List[str]) -> models.Unigram:
    """A unigram model with SentencePiece's scores."""
    scores = {piece.piece: piece.score for piece in proto.pieces}
    return models.Unigram([(symbol, scores.get(symbol, 0.0)) for symbol in symbols], symbols.index("<unk>"),
                          byte_fallback=proto.trainer_spec.byte_fallback)


def bpe(proto: Any, symbols: List[str]) -> models.BPE:
    """A BPE model: SentencePiece first merges the pair whose result has the highest score, `tokenizers` the pair that
    is listed first."""
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    merges = []
    for piece in proto.pieces:
        if piece.type == NORMAL:
            halves = ((piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece)))
            merges += [(-piece.score, ids[left], ids[right], left, right) for left, right in halves
                       if left in ids and right in ids]
    return models.BPE(ids, [(left, right) for *_, left, right in sorted(merges)], unk_token="<unk>", fuse_unk=True,
                      byte_fallback=proto.trainer_spec.byte_fallback)
