"""The stages of a corpus: survey, tokenizer, encoded text, data-bin. A run that was interrupted goes on behind the last
finished stage; a finished corpus is not made again."""

import contextlib
import os
import shutil
from collections import Counter

import sentencepiece
import tokenizers

from ..huggingface.sentencepiece_model import SentencePieceTokenizer, read_tokenizer
from ..system.atomic_files import atomic_path, remove, write_bytes, write_text
from ..system.locks import exclusive_lock
from .binarize import binarize
from .encoding import EncodedText, encode_corpus
from .folder import CONTENT, CorpusFolder
from .parts import binarize_in_parts
from .progress import result_with_clock
from .settings import parameters
from .survey import survey
from .tokenizer_training import train_tokenizer


def prepare_corpus(settings):
    """Leave a finished corpus in `settings.out`, tell what is in it and return the path to give to fairseq-train.

    Raises `UsageError` for a text, tokenizer or size that cannot work, a full disk, a folder that holds another corpus.
    """
    with exclusive_lock(settings.out):
        source, given = settings.source(), settings.given_tokenizer()
        folder = CorpusFolder(settings.out, parameters(settings, source, given))
        folder.refuse_another()
        found = survey(source, settings.valid_fraction, settings.seed)
        folder.parameters[CONTENT] = found.digest
        folder.refuse_another()
        if folder.is_whole():
            print(f"{settings.out}: this corpus is already there")
        else:
            run_stages(folder, settings, source, given, found)
    return tell(folder, settings)


def run_stages(folder, settings, source, given, found):
    folder.begin()
    try:
        tokenizer = tokenizer_stage(folder, settings, given, found.sample)
        if settings.stream:
            stream_stage(folder, settings, source, tokenizer, found.limit)
        else:
            encoding_stage(folder, settings, source, tokenizer, found.limit)
            data_bin_stage(folder, settings.workers)
        folder.remember(workers=settings.workers, versions=versions())
        folder.finish()
    except BaseException:
        folder.leave()
        raise


def tokenizer_stage(folder, settings, given, sample):
    if given is None and folder.has("tokenizer.model"):
        return read_tokenizer(folder.path("tokenizer.model"))
    tokenizer = given or trained(sample, settings)
    folder.remember(tokenizer=list(tokenizer.files))
    with contextlib.ExitStack() as all_or_none:
        for name, content in tokenizer.files.items():  # the first appears last: it says that the stage is finished
            write_bytes(all_or_none.enter_context(atomic_path(folder.path(name))), content)
    return tokenizer


def trained(sample, settings):
    sentence = f"Training the tokenizer on {sum(map(len, sample)) / 1e6:.1f} million characters"
    model = result_with_clock(sentence, lambda: train_tokenizer(sample, settings.vocab_size, settings.seed))
    return SentencePieceTokenizer(model, "the tokenizer of this text")


def encoding_stage(folder, settings, source, tokenizer, limit):
    if folder.has("encoded"):
        return
    with atomic_path(folder.path("encoded")) as tmp:
        text = EncodedText(tmp, tokenizer, limit, settings.shards)
        encode_corpus(text, source, settings.workers)
        remember_text(folder, text)


def remember_text(folder, text):
    write_text(folder.path("dict.txt"), text.tokenizer.dictionary(text.pieces))
    folder.remember(splits=by_split(text.counts), data_bin_tokens=text.data_bin_tokens())


def data_bin_stage(folder, workers):
    if not folder.has("bin"):
        with atomic_path(folder.path("bin")) as tmp:
            tokens = folder.record["data_bin_tokens"]
            binarize(folder.path("encoded"), folder.path("dict.txt"), tokens, tmp, workers)


def stream_stage(folder, settings, source, tokenizer, limit):
    """The two stages above in one, for a disk that would not hold the encoded text."""
    if folder.has("bin"):
        return
    with atomic_path(folder.path("bin")) as tmp:
        parts = os.path.join(tmp, "parts")
        text = EncodedText(os.path.join(parts, "text"), tokenizer, limit, settings.shards)
        binarize_in_parts(text, source, parts, tmp, settings.workers)
        remove(parts)
        remember_text(folder, text)
        for shard in {os.path.dirname(name) for name in text.counts}:
            shutil.copy(folder.path("dict.txt"), os.path.join(tmp, shard))


def by_split(counts):
    """{"train": counts and shares} over all shards."""
    splits = {}
    for name, counted in counts.items():
        splits.setdefault(os.path.basename(name), Counter()).update(counted)
    return {name: {**total, **shares(total)} for name, total in splits.items()}


def shares(total):
    return {"unk_share": total["unk"] / total["tokens"], "tokens_per_word": total["tokens"] / total["words"]}


def versions():
    import fairseq  # takes seconds, and reading text does not need it

    return {package.__name__: package.__version__ for package in (sentencepiece, tokenizers, fairseq)}


def tell(folder, settings):
    for split, total in folder.record["splits"].items():
        print(
            f"{split}: {total['documents']:,} documents, {total['words']:,} words, {total['tokens']:,} tokens, "
            f"{total['tokens_per_word']:.2f} tokens per word, {total['unk_share']:.3%} <unk>"
        )
    shards = [f"bin/shard{shard}" for shard in range(settings.shards)] if settings.shards > 1 else ["bin"]
    path = ":".join(folder.path(shard) for shard in shards)
    print(f"for fairseq-train: {path}")
    return path
