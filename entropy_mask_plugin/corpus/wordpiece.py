"""BERT's WordPiece as the tokenizer of a corpus: same interface as
`huggingface.sentencepiece_model.SentencePieceTokenizer`.

    Hugging Face:  ids as in vocab.txt, [PAD] [UNK] [CLS] [SEP] [MASK] anywhere
    fairseq:       <s> <pad> </s> <unk>  + the other pieces in the order of vocab.txt +  <mask>

Special tokens are never the result of encoding: text that contains "[MASK]" becomes "[", "mask", "]".
"""

import os

from ..huggingface.tokenizer_files import bert_files
from ..huggingface.wordpiece import read_wordpiece


class WordPieceTokenizer:
    """`names[i]` is how piece i of vocab.txt is written in encoded text."""

    def __init__(self, path):
        """path: a Hugging Face folder or a vocab.txt; raises `UsageError` like `read_wordpiece`."""
        self.origin = f"--bert-vocab {path}"
        wordpiece = read_wordpiece(path, "--bert-vocab")
        self.tokenizer, self.vocabulary = wordpiece.tokenizer, wordpiece.vocabulary
        self.files = bert_files(path, "--bert-vocab").files
        symbols = dict(zip(self.vocabulary.rows(), self.vocabulary.symbols()))
        self.names = [symbols[i] for i in range(len(symbols))]
        self.unk = self.vocabulary.id_of("unk")
        self.dictionary_size = len(self.names)

    @property
    def content(self):
        return b"".join(self.files[name] for name in sorted(self.files))

    def dictionary(self, counts):
        """dict.txt. counts: {piece id: occurrences in the training text}."""
        return self.vocabulary.dictionary({self.names[i]: count for i, count in counts.items()})

    def encode(self, lines, workers):
        """Piece ids of each line."""
        os.environ.setdefault("RAYON_NUM_THREADS", str(workers))  # read once, when `tokenizers` encodes its first batch
        return [encoded.ids for encoded in self.tokenizer.encode_batch_fast(lines, add_special_tokens=False)]
