"""Show what a masking policy masks on held-out text: a page, pictures and tables.

    %(prog)s runs/high --data corpora/mine/bin --out atlas
    %(prog)s runs/high --beside runs/random --data corpora/mine/bin --out atlas

For one policy or two side by side, at several checkpoints of a run: the masks of the validation
text, chosen as the run would choose them in its next update. The page needs no other file.
"""

EPILOG = """
output in DIR:
  atlas.html             passages, token map, masked fractions: one file, also without a network
  atlas.json             all numbers
  tokens.csv             a row for each token type of the text
  token_map.png, masked_fraction.png, checkpoints.png
"""


def add_arguments(parser):
    parser.add_argument("policy", nargs="+", metavar="RUN",
                        help="a --save-dir of fairseq-train, or checkpoint files of one run")
    parser.add_argument("--beside", nargs="+", default=[], metavar="RUN", help="a second policy")
    parser.add_argument("--data", required=True, metavar="BIN", help="data-bin whose validation split is masked")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the atlas goes")
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME",
                        help="of the policies (default: the parts of their paths that differ)")
    parser.add_argument("--teacher", metavar="PATH", help="where the teacher of the run is now (default: where it was)")
    parser.add_argument("--limit", type=int, default=512, metavar="N",
                        help="blocks that are masked, evenly spaced over the split (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, metavar="N",
                        help="draws of the masks at each checkpoint, with the noise of as many epochs "
                             "(default: %(default)s)")
    parser.add_argument("--passages", type=int, default=20, metavar="N",
                        help="blocks that are shown (default: %(default)s)")
    parser.add_argument("--checkpoints", type=int, default=8, metavar="N",
                        help="at most so many of a policy, evenly spaced (default: %(default)s)")
    parser.add_argument("--no-word-classes", action="store_true",
                        help="for text that is not English; without it, words are tagged where the extra [atlas] is "
                             "installed")


def run(args):
    from pathlib import Path

    from ..atlas.build import Settings, make_atlas, write_atlas

    atlas = make_atlas(Settings(args.policy, args.beside, args.data, args.names, args.teacher, args.limit, args.epochs,
                                args.passages, args.checkpoints, not args.no_word_classes), show_progress=True)
    write_atlas(atlas, args.out)
    print(f"atlas: {Path(args.out) / 'atlas.html'}")
