"""Count how often a model prefers the acceptable sentence of a minimal pair (BLiMP), without fine-tuning.

    %(prog)s --checkpoint runs/random/checkpoint_best.pt --pairs blimp
    %(prog)s --checkpoint models/bert --pairs blimp --limit 50 --metric within_word_l2r --out blimp-runs/bert

Chance is 50 %%; a tie counts one half.
"""

EPILOG = """
input in PAIRS, a file of JSON lines or a folder of *.jsonl:
  sentence_good, sentence_bad          in every line
  UID, field, linguistics_term         optional; the paradigm is UID, or else the name of the file

output in DIR:
  minimal_pairs.md, .csv, .json        accuracy overall, by field, linguistic term and paradigm
  pairs.csv                            both scores of each pair, in nats
"""


def add_arguments(parser):
    add_model(parser)
    parser.add_argument("--pairs", required=True, metavar="PATH", help="a folder of *.jsonl files, or one file")
    add_scoring(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pairs of each paradigm only")
    parser.add_argument("--out", metavar="DIR", help="where the results go (default: they are only printed)")


def add_model(parser):
    parser.add_argument("--checkpoint", required=True, metavar="PATH",
                        help="a pretrained model of this plug-in, or the Hugging Face folder of a BERT")
    parser.add_argument("--tokenizer", metavar="PATH",
                        help="tokenizer.model, vocab.txt or Hugging Face folder (default: in the folder, or next to "
                             "the checkpoint or its training data)")


def add_scoring(parser):
    parser.add_argument("--metric", choices=("pll", "within_word_l2r"), default="pll",
                        help="pll: each token is masked alone (Salazar et al. 2020). within_word_l2r: with it, the "
                             "later tokens of its word (Kauf and Ivanova 2023) (default: pll)")
    parser.add_argument("--max-tokens", type=int, default=4096, metavar="N",
                        help="tokens in a batch, for speed and memory (default: %(default)s)")


def run(args):
    from ..evaluation import minimal_pairs, reading
    from ..evaluation.models import read_model
    from ..system.atomic_files import make_folder

    pairs = reading.read_pairs(args.pairs, args.limit)
    model = read_model(args.checkpoint, args.tokenizer)
    if args.out:
        make_folder(args.out, "--out")  # a name that cannot be one is refused before the work
    scored = minimal_pairs.score_pairs(model, pairs, args.metric, args.max_tokens, show_progress=True)
    print(minimal_pairs.markdown(minimal_pairs.summaries(scored)))  # first: an unwritable folder must not cost it
    if args.out:
        settings = {"checkpoint": args.checkpoint, "pairs": args.pairs, "metric": args.metric, "limit": args.limit}
        minimal_pairs.write_results(args.out, settings, scored)
