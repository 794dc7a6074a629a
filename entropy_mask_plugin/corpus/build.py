"""The stages of a corpus: survey, tokenizer, encoded text, data-bin. An interrupted run resumes after the last finished
stage; a finished corpus is not built again."""

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from typing import Any, Dict, List, Optional

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
from .settings import CorpusSettings, CorpusTokenizer, parameters
from .sources import DocumentSource
from .survey import Survey, survey
from .tokenizer_training import train_tokenizer


def prepare_corpus(settings: CorpusSettings) -> str:
    """Build a corpus in `settings.out`, or resume it, and print a summary.

    Returns:
        the data argument for fairseq-train.
    Raises:
        UsageError: an unusable text, tokenizer or size; a full disk; the folder holds another corpus, or another run
            is writing there.
    """
    with exclusive_lock(settings.out):
        source, given = settings.source(), settings.given_tokenizer()
        folder = CorpusFolder(settings.out, parameters(settings, source, given))
        folder.refuse_another()
        surveyed = survey(source, settings.valid_fraction, settings.seed)
        folder.parameters[CONTENT] = surveyed.digest
        folder.refuse_another()
        if folder.is_complete():
            print(f"{settings.out}: this corpus is already there")
        else:
            run_corpus_stages(folder, settings, source, given, surveyed)
    return print_summary(folder, settings)


def run_corpus_stages(folder: CorpusFolder, settings: CorpusSettings, source: DocumentSource,
                      given: Optional[CorpusTokenizer], surveyed: Survey) -> None:
    """Run the stages that are not finished. given: the user's tokenizer; None = train one."""
    folder.begin()
    try:
        tokenizer = tokenizer_stage(folder, settings, given, surveyed.sample)
        if settings.stream:
            stream_stage(folder, settings, source, tokenizer, surveyed.limit)
        else:
            encoding_stage(folder, settings, source, tokenizer, surveyed.limit)
            data_bin_stage(folder, settings.workers)
        folder.remember(workers=settings.workers, versions=tool_versions())
        folder.finish()
    except BaseException:
        folder.leave()
        raise


def tokenizer_stage(folder: CorpusFolder, settings: CorpusSettings, given: Optional[CorpusTokenizer],
                    sample: List[str]) -> CorpusTokenizer:
    """Train the tokenizer or copy the given one. sample: lines to train on."""
    if given is None and folder.has("tokenizer.model"):
        return read_tokenizer(folder.path("tokenizer.model"))
    tokenizer = given or trained_tokenizer(sample, settings)
    folder.remember(tokenizer=list(tokenizer.files))
    with contextlib.ExitStack() as all_or_none:
        for name, content in tokenizer.files.items():  # renamed in reverse: the first marks the stage as finished
            write_bytes(all_or_none.enter_context(atomic_path(folder.path(name))), content)
    return tokenizer


def trained_tokenizer(sample: List[str], settings: CorpusSettings) -> SentencePieceTokenizer:
    """A SentencePiece model trained on these lines."""
    sentence = f"Training the tokenizer on {sum(map(len, sample)) / 1e6:.1f} million characters"
    assert settings.vocab_size is not None  # unless a tokenizer is given
    size = settings.vocab_size
    model = result_with_clock(sentence, lambda: train_tokenizer(sample, size, settings.seed))
    return SentencePieceTokenizer(model, "the tokenizer of this text")


def encoding_stage(folder: CorpusFolder, settings: CorpusSettings, source: DocumentSource, tokenizer: CorpusTokenizer,
                   limit: int) -> None:
    """Encode the documents. limit: see `splits`."""
    if folder.has("encoded"):
        return
    with atomic_path(folder.path("encoded")) as tmp:
        text = EncodedText(tmp, tokenizer, limit, settings.shards)
        encode_corpus(text, source, settings.workers)
        remember_text(folder, text)


def remember_text(folder: CorpusFolder, text: EncodedText) -> None:
    """Write dict.txt and record the counts of the text."""
    write_text(folder.path("dict.txt"), text.tokenizer.dictionary(text.token_counts))
    folder.remember(splits=by_split(text.counts), data_bin_tokens=text.data_bin_tokens())


def data_bin_stage(folder: CorpusFolder, workers: int) -> None:
    """Binarize the encoded text."""
    if not folder.has("bin"):
        with atomic_path(folder.path("bin")) as tmp:
            tokens = folder.record["data_bin_tokens"]
            binarize(folder.path("encoded"), folder.path("dict.txt"), tokens, tmp, workers)


def stream_stage(folder: CorpusFolder, settings: CorpusSettings, source: DocumentSource, tokenizer: CorpusTokenizer,
                 limit: int) -> None:
    """The two stages above in one, for a disk without room for the encoded text."""
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


def by_split(counts: Mapping[str, Counter]) -> Dict[str, Dict[str, Any]]:
    """{"train": counts and ratios, …} over all shards."""
    splits = {}
    for name, counts_of_text in counts.items():
        splits.setdefault(os.path.basename(name), Counter()).update(counts_of_text)
    return {name: {**total, **ratios(total)} for name, total in splits.items()}


def ratios(total: Mapping[str, int]) -> Dict[str, float]:
    """The fraction of <unk> among the tokens, and the tokens per word."""
    return {"unk_share": total["unk"] / total["tokens"], "tokens_per_word": total["tokens"] / total["words"]}


def tool_versions() -> Dict[str, str]:
    """{package: version} of what the result depends on."""
    import fairseq  # here, as it takes seconds, and reading text does not need it

    return {package.__name__: package.__version__ for package in (sentencepiece, tokenizers, fairseq)}


def print_summary(folder: CorpusFolder, settings: CorpusSettings) -> str:
    """Print the counts of each split; print and return the data argument for fairseq-train."""
    for split, total in folder.record["splits"].items():
        print(
            f"{split}: {total['documents']:,} documents, {total['words']:,} words, {total['tokens']:,} tokens, "
            f"{total['tokens_per_word']:.2f} tokens per word, {total['unk_share']:.3%} <unk>"
        )
    shards = [f"bin/shard{shard}" for shard in range(settings.shards)] if settings.shards > 1 else ["bin"]
    path = ":".join(folder.path(shard) for shard in shards)
    print(f"for fairseq-train: {path}")
    return path
