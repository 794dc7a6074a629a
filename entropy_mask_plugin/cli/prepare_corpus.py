"""Turn text into the data-bin that fairseq-train reads.

    %(prog)s --text my_text.txt --out corpora/mine
    %(prog)s --text my_text.txt --out corpora/mine --bert-vocab models/bert-base-uncased
    %(prog)s --dataset wikitext-103 --out corpora/wikitext-103
    %(prog)s --docstrings --out corpora/docstrings       (no network needed)
"""

import resource
import sys
import time

EPILOG = """
output in DIR:
  bin/                 the data-bin: give this folder to fairseq-train
                       (with --shards, the colon-separated path that is printed at the end)
  tokenizer.model      the SentencePiece model, tokenizer.vocab its subword tokens and scores;
                       with --bert-vocab, tokenizer.json and vocab.txt
  dict.txt             fairseq's dictionary, with counts in the training text
  encoded/             the text as subword tokens: one paragraph per line, documents separated by
                       blank lines (not with --stream)
  corpus.json          every parameter, and the counts of documents, words and tokens

Rerun the same command to resume. A finished corpus is never overwritten.
"""


def add_arguments(parser):
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the corpus; created if missing")
    add_source(parser.add_argument_group("where the text comes from (one of these)"))
    add_tokenizer(parser.add_argument_group("tokenizer"))
    group = parser.add_argument_group("splits, shards, speed")
    group.add_argument("--valid-fraction", type=float, default=0.05, metavar="F",
                       help="fraction of the documents for validation, chosen by their text; "
                            "not used if a dataset has official splits (default: %(default)s)")
    group.add_argument("--shards", type=int, default=1, metavar="N",
                       help="split the training documents into N data-bins; fairseq reads one per epoch (default: 1)")
    group.add_argument("--workers", type=int, metavar="N",
                       help="CPU cores to use; the result does not depend on it (default: all)")


def add_source(group):
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", nargs="+", metavar="FILE",
                        help="UTF-8 text, one paragraph per line, blank lines between documents; "
                             "several files are read one after the other")
    source.add_argument("--dataset", choices=("wikitext-2", "wikitext-103", "bookcorpus"),
                        help="a public dataset, downloaded by the package `datasets`. WikiText keeps its official "
                             "splits; BookCorpus has none and no book boundaries: 512 sentences make a document")
    group.add_argument("--dataset-dir", metavar="DIR",
                       help="a local copy of the --dataset: parquet, arrow, json or text files with the split "
                            "in their names, or the output of save_to_disk (default: the hub, or its cache)")
    group.add_argument("--stream", action="store_true",
                       help="for a --dataset larger than the disk: read it over the network (twice) instead of storing "
                            "it, and build the data-bin in parts, without keeping the encoded text")
    group.add_argument("--detokenize", action="store_true",
                       help="undo WikiText's word tokenization: \"1 @,@ 990\" becomes \"1,990\", \"= Title =\" "
                            "\"Title\" (default: the text as published)")
    source.add_argument("--docstrings", action="store_true",
                        help="the docstrings of the standard library, torch, numpy, scipy and scikit-learn, "
                             "if installed: English for trying things out")


def add_tokenizer(group):
    group.add_argument("--tokenizer", metavar="MODEL",
                       help="use this SentencePiece model; without it one is trained on the training documents")
    group.add_argument("--bert-vocab", metavar="PATH",
                       help="use BERT's WordPiece: a vocab.txt or a Hugging Face folder, uncased or cased as its "
                            "configuration says (otherwise inferred from the vocabulary)")
    group.add_argument("--vocab-size", type=int, metavar="N",
                       help="entries of fairseq's dictionary, its 5 special symbols included (default: 30000)")
    group.add_argument("--seed", type=int, default=1, metavar="N",
                       help="chooses the sample that the tokenizer is trained on (default: 1)")


def run(args):
    from ..corpus.build import prepare_corpus
    from ..corpus.settings import CorpusSettings

    begin = time.monotonic()
    prepare_corpus(CorpusSettings(**vars(args)))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - begin:,.0f} seconds, {megabytes:,.0f} MB of memory at most, without fairseq-preprocess",
          file=sys.stderr)  # the last line of standard output is the path
