"""Make two small labelled tasks in GLUE's layout from the docstrings of the installed packages.

    %(prog)s --out tasks
    entropy-mask glue --glue tasks --tasks library,order --checkpoint …

For machines without GLUE.
library: which of five libraries does a passage come from? order: are its words in order, or shuffled?
"""

import os


def add_arguments(parser):
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--train", type=int, default=500, metavar="N", help="passages of each library (default: 500)")
    parser.add_argument("--dev", type=int, default=100, metavar="N", help="passages of each library (default: 100)")


def run(args):
    from ..glue.docstring_tasks import write_docstring_tasks
    from ..system.errors import require

    require("--train", args.train, args.train >= 1, "1 or more")
    require("--dev", args.dev, args.dev >= 1, "1 or more")
    require("--out", f"{args.out}, which exists,", not os.path.exists(args.out), "a new folder")
    write_docstring_tasks(args.out, args.train, args.dev)
