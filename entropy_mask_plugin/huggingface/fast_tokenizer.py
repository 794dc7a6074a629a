"""A SentencePiece model as a fast tokenizer that gives the same ids (test_huggingface_tokenizers.py compares them).

    text -> normalizer -> blanks become ▁ -> unigram or bpe -> <s> … </s>
"""

from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..system.errors import UsageError

BLANK = "▁"
UNIGRAM, BPE = 1, 2  # of SentencePiece's TrainerSpec.ModelType
NORMAL, USER_DEFINED = 1, 4  # of its SentencePiece.Type
# NFKC would change this character, SentencePiece's nmt_nfkc does not: it waits outside Unicode's assigned planes.
TILDE, SHELTER = "～", "\U0010fffd"


def fast_tokenizer(model, symbols):
    """
    Args:
        model: bytes of a SentencePiece model.
        symbols: fairseq's dictionary, <mask> included: the ids of the new tokenizer.
    Returns:
        `tokenizers.Tokenizer` of plain text, without special tokens.
    Raises:
        UsageError: a kind of model that `tokenizers` cannot reproduce.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    refuse_unlike(proto)
    tokenizer = Tokenizer(unigram(proto, symbols) if proto.trainer_spec.model_type == UNIGRAM else bpe(proto, symbols))
    tokenizer.normalizer = normalizer(proto.normalizer_spec)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, prepend(proto), split=blanks_only_in_front(proto))
    tokenizer.decoder = decoders.Metaspace(BLANK, prepend(proto))
    return tokenizer


def refuse_unlike(proto):
    trainer, normalizer_spec = proto.trainer_spec, proto.normalizer_spec
    found = {
        "its type is neither unigram nor bpe": trainer.model_type not in (UNIGRAM, BPE),
        "it has user-defined symbols": any(piece.type == USER_DEFINED for piece in proto.pieces),
        "it marks the end of words, not their beginning": trainer.treat_whitespace_as_suffix,
        "it does not mark blanks": not normalizer_spec.escape_whitespaces,
    }
    for reason, holds in found.items():
        if holds:
            raise UsageError(f"--tokenizer: this SentencePiece model cannot become a fast tokenizer: {reason}")


def prepend(proto):
    return "first" if proto.normalizer_spec.add_dummy_prefix else "never"


def blanks_only_in_front(proto):
    """Whether words can be encoded one by one, which is faster."""
    return not any(BLANK in piece.piece[1:] for piece in proto.pieces if piece.type == NORMAL)


def normalizer(spec):
    """SentencePiece's own table. `tokenizers` applies it to whole grapheme clusters and so overlooks some pairs of a
    letter and an accent; NFKC before it, where the table is made of NFKC, leaves no such pairs."""
    steps = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if "nfkc" in spec.name:
        steps.insert(0, normalizers.NFKC())
    if spec.name.startswith("nmt_"):
        steps = [normalizers.Replace(TILDE, SHELTER), *steps, normalizers.Replace(SHELTER, TILDE)]
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False, right=True)]
    return normalizers.Sequence(steps)


def unigram(proto, symbols):
    scores = {piece.piece: piece.score for piece in proto.pieces}
    return models.Unigram([(symbol, scores.get(symbol, 0.0)) for symbol in symbols], symbols.index("<unk>"),
                          byte_fallback=proto.trainer_spec.byte_fallback)


def bpe(proto, symbols):
    """SentencePiece merges the pair whose piece has the highest score, `tokenizers` the pair that comes first."""
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    merges = []
    for piece in proto.pieces:
        if piece.type == NORMAL:
            halves = ((piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece)))
            merges += [(-piece.score, ids[left], ids[right], left, right) for left, right in halves
                       if left in ids and right in ids]
    return models.BPE(ids, [(left, right) for *_, left, right in sorted(merges)], unk_token="<unk>", fuse_unk=True,
                      byte_fallback=proto.trainer_spec.byte_fallback)
