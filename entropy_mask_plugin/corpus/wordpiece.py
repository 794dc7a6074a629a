"""BERT's WordPiece as the tokenizer of a corpus: same interface as
`huggingface.sentencepiece_model.SentencePieceTokenizer`.

    Hugging Face:  ids as in vocab.txt, [PAD] [UNK] [CLS] [SEP] [MASK] anywhere
    fairseq:       <s> <pad> </s> <unk>  + the other tokens in the order of vocab.txt +  <mask>

Text is never encoded to special tokens: "[MASK]" in a text becomes "[", "mask", "]".
"""

import os
from collections.abc import Mapping, Sequence
from typing import List

from ..huggingface.tokenizer_files import bert_files
from ..huggingface.wordpiece import read_wordpiece


class WordPieceTokenizer:
    """`names[i]` is how token i of vocab.txt is written in encoded text.

    Args:
        path: a Hugging Face folder or a vocab.txt.
    Raises:
        UsageError: see `read_wordpiece`.
    """

    def __init__(self, path: str):
        self.origin = f"--bert-vocab {path}"
        wordpiece = read_wordpiece(path, "--bert-vocab")
        self.tokenizer, self.vocabulary = wordpiece.tokenizer, wordpiece.vocabulary
        self.files = bert_files(path, "--bert-vocab").files
        symbols = dict(zip(self.vocabulary.rows(), self.vocabulary.symbols(), strict=True))
        self.names = [symbols[i] for i in range(len(symbols))]
        self.unk = self.vocabulary.id_of("unk")
        self.dictionary_size = len(self.names)

    @property
    def content(self) -> bytes:
        """What identifies the tokenizer."""
        return b"".join(self.files[name] for name in sorted(self.files))

    def dictionary(self, counts: Mapping[int, int]) -> str:
        """The content of dict.txt. counts: {token id: occurrences in the training text}."""
        return self.vocabulary.dictionary({self.names[i]: count for i, count in counts.items()})

    def encode(self, lines: Sequence[str], workers: int) -> List[List[int]]:
        """The token ids of each line. workers: threads of the first call, which later calls keep."""
        os.environ.setdefault("RAYON_NUM_THREADS", str(workers))  # read once, when `tokenizers` encodes its first batch
        return [encoded.ids for encoded in self.tokenizer.encode_batch_fast(lines, add_special_tokens=False)]
