"""Measure how well a model predicts a text: pseudo-perplexity per word.

    %(prog)s --checkpoint runs/random/checkpoint_best.pt --data corpora/mine/bin --limit 100
    %(prog)s --checkpoint models/bert --text held_out.txt

Of masked tokens, each one a forward pass, and of tokens that the model sees.
"""

from .minimal_pairs import add_model, add_scoring

EPILOG = """
output in DIR:
  pseudo_perplexity.md, .csv, .json
"""


def add_arguments(parser):
    add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="BIN", help="the validation split of this data-bin; words begin where the "
                                                      "vocabulary says so")
    source.add_argument("--text", metavar="FILE", help="UTF-8 text, a sentence or paragraph a line; words are "
                                                       "separated by white space")
    add_scoring(parser)
    parser.add_argument("--tokens-per-sample", type=int, metavar="N",
                        help="with --data, positions of a block (default: as the model was trained)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N blocks or lines only")
    parser.add_argument("--out", metavar="DIR", help="where the results go (default: they are only printed)")


def run(args):
    from ..evaluation import pseudo_perplexity
    from ..evaluation.models import read_model
    from ..system.atomic_files import make_folder
    from ..system.errors import require

    require("--tokens-per-sample", "--text", args.data or args.tokens_per_sample is None, "it together with --data")
    model = read_model(args.checkpoint, args.tokenizer)
    passages = (pseudo_perplexity.passages_of_text(model, args.text, args.limit) if args.text else
                pseudo_perplexity.passages_of_data(model, args.data, args.limit, args.tokens_per_sample))
    if args.out:
        make_folder(args.out, "--out")  # a name that cannot be one is refused before the work
    record = pseudo_perplexity.pseudo_perplexity(model, passages, args.metric, args.max_tokens, show_progress=True)
    print(pseudo_perplexity.markdown(record))  # first: an unwritable folder must not cost it
    if args.out:
        settings = {"checkpoint": args.checkpoint, "data": args.data, "text": args.text, "metric": args.metric,
                    "limit": args.limit}
        pseudo_perplexity.write_results(args.out, settings, record)
