"""What is asked for, checked before any work."""

import os
from dataclasses import dataclass
from typing import List, Optional

from ..huggingface.sentencepiece_model import FEWEST_ENTRIES, read_tokenizer
from ..system.digests import digest
from ..system.errors import UsageError, require
from .docstrings import Docstrings
from .public_datasets import PUBLIC_DATASETS, PublicDatasetSource
from .sources import TextFiles
from .wordpiece import WordPieceTokenizer


@dataclass
class Settings:
    """The flags of the command `prepare-corpus`. One of text, dataset and docstrings says where documents come from."""

    out: str
    text: Optional[List[str]] = None
    dataset: Optional[str] = None
    dataset_dir: Optional[str] = None
    stream: bool = False
    detokenize: bool = False
    docstrings: bool = False
    tokenizer: Optional[str] = None
    bert_vocab: Optional[str] = None
    vocab_size: Optional[int] = None  # entries of fairseq's dictionary; 30000, or what the given tokenizer has
    valid_fraction: float = 0.05
    workers: Optional[int] = None  # all cores of this process
    seed: int = 1
    shards: int = 1

    def __post_init__(self):
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
        require("--vocab-size", self.vocab_size, self.vocab_size is None or self.vocab_size >= FEWEST_ENTRIES,
                f"{FEWEST_ENTRIES} or more")
        require("--workers", self.workers, 1 <= self.workers <= 1024, "1 to 1024")
        require("--shards", self.shards, self.shards >= 1, "1 or more")
        require("--seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        require("--dataset", self.dataset, self.dataset is None or self.dataset in PUBLIC_DATASETS,
                f"one of {', '.join(PUBLIC_DATASETS)}")
        for flag, given in (("--dataset-dir", self.dataset_dir), ("--stream", self.stream)):
            require(flag, "no --dataset", not given or self.dataset, "it together with --dataset")
        require("--detokenize", f"--dataset {self.dataset}",
                not self.detokenize or (self.dataset and PUBLIC_DATASETS[self.dataset].detokenize),
                "--dataset wikitext-2 or wikitext-103")

    def source(self):
        if self.text:
            return TextFiles(self.text)
        if self.dataset:
            return PublicDatasetSource(self.dataset, self.dataset_dir, self.stream, self.detokenize)
        return Docstrings()

    def given_tokenizer(self):
        if not (self.tokenizer or self.bert_vocab):
            return None
        given = read_tokenizer(self.tokenizer) if self.tokenizer else WordPieceTokenizer(self.bert_vocab)
        if self.vocab_size not in (None, given.dictionary_size):
            raise UsageError(
                f"--vocab-size {self.vocab_size}: {given.origin} makes a dictionary of {given.dictionary_size} "
                "entries, expected that number or no --vocab-size"
            )
        return given


def parameters(settings, source, given):
    """Everything that decides the result; the number of workers does not."""
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
