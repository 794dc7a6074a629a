"""The requested corpus, checked before any work."""

import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Union

from ..huggingface.sentencepiece_model import FEWEST_ENTRIES, SentencePieceTokenizer, read_tokenizer
from ..system.digests import digest
from ..system.errors import UsageError, require
from .docstrings import Docstrings
from .public_datasets import PUBLIC_DATASETS, PublicDatasetSource
from .sources import DocumentSource, TextFiles
from .wordpiece import WordPieceTokenizer

CorpusTokenizer = Union[SentencePieceTokenizer, WordPieceTokenizer]


@dataclass
class CorpusSettings:
    """The flags of `entropy-mask prepare-corpus`. One of text, dataset and docstrings names the source.

    Raises:
        UsageError: a flag out of its range, or flags that contradict each other.
    """

    out: str
    text: Optional[List[str]] = None
    dataset: Optional[str] = None
    dataset_dir: Optional[str] = None
    stream: bool = False
    detokenize: bool = False
    docstrings: bool = False
    tokenizer: Optional[str] = None
    bert_vocab: Optional[str] = None
    vocab_size: Optional[int] = None  # entries of fairseq's dictionary; None = 30000, or the given tokenizer's size
    valid_fraction: float = 0.05
    workers: int = None  # type: ignore[assignment]  # None = as many as this process has cores
    seed: int = 1
    shards: int = 1

    def __post_init__(self) -> None:
        if self.tokenizer and self.bert_vocab:
            raise UsageError("--tokenizer and --bert-vocab: both found, expected one of them")
        if self.vocab_size is None and not (self.tokenizer or self.bert_vocab):
            self.vocab_size = 30000
        if self.workers is None:
            self.workers = len(os.sched_getaffinity(0))
        if sum(map(bool, (self.text, self.dataset, self.docstrings))) != 1:
            raise UsageError("no source or several found, expected one of --text, --dataset and --docstrings")
        require("--out", self.out, os.pathsep not in self.out, f"no {os.pathsep!r}, where fairseq splits paths")
        require("--valid-fraction", self.valid_fraction, 0 < self.valid_fraction < 1, "a number between 0 and 1")
        require("--vocab-size", self.vocab_size, self.vocab_size is None or FEWEST_ENTRIES <= self.vocab_size < 2**31,
                f"{FEWEST_ENTRIES} or more, below 2^31")
        require("--workers", self.workers, 1 <= self.workers <= 1024, "1 to 1024")
        require("--shards", self.shards, 1 <= self.shards <= 10_000, "1 to 10,000")
        require("--seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        require("--dataset", self.dataset, self.dataset is None or self.dataset in PUBLIC_DATASETS,
                f"one of {', '.join(PUBLIC_DATASETS)}")
        for flag, value in (("--dataset-dir", self.dataset_dir), ("--stream", self.stream)):
            require(flag, "no --dataset", not value or self.dataset, "it together with --dataset")
        require("--detokenize", f"--dataset {self.dataset}",
                not self.detokenize or (self.dataset and PUBLIC_DATASETS[self.dataset].detokenize),
                "--dataset wikitext-2 or wikitext-103")

    def source(self) -> DocumentSource:
        """Where the documents come from; raises a UsageError if it cannot be read."""
        if self.text:
            return TextFiles(self.text)
        if self.dataset:
            return PublicDatasetSource(self.dataset, self.dataset_dir, self.stream, self.detokenize)
        return Docstrings()

    def given_tokenizer(self) -> Optional[CorpusTokenizer]:
        """The user's tokenizer; None = train one. Raises a UsageError if it cannot be read or has another size."""
        if not (self.tokenizer or self.bert_vocab):
            return None
        given = read_tokenizer(self.tokenizer) if self.tokenizer else WordPieceTokenizer(str(self.bert_vocab))
        if self.vocab_size not in (None, given.dictionary_size):
            raise UsageError(
                f"--vocab-size {self.vocab_size}: {given.origin} makes a dictionary of {given.dictionary_size} "
                "entries, expected that number or no --vocab-size"
            )
        return given


def parameters(settings: CorpusSettings, source: DocumentSource, given: Optional[CorpusTokenizer]) -> Dict[str, Any]:
    """Everything that the result depends on: not the number of workers."""
    return {
        **source.description,
        "--tokenizer": settings.tokenizer and os.path.abspath(settings.tokenizer),
        **({"--bert-vocab": os.path.abspath(settings.bert_vocab)} if settings.bert_vocab else {}),
        "content of the tokenizer": given and digest(given.content),
        "--vocab-size": given.dictionary_size if given else settings.vocab_size,
        "--valid-fraction": settings.valid_fraction,
        "--seed": settings.seed,
        "--shards": settings.shards,
    }
