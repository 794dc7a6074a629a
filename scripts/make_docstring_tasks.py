#!/usr/bin/env python3
"""Two small labelled tasks from the docstrings of the installed packages, in GLUE's layout, for machines without GLUE.

    python scripts/make_docstring_tasks.py --out tasks
    python scripts/finetune_glue.py --glue tasks --tasks library,order --checkpoint …

library: which of five libraries does a passage come from? order: are its words in order, or shuffled?
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--train", type=int, default=500, metavar="N", help="passages of each library (default: 500)")
    parser.add_argument("--dev", type=int, default=100, metavar="N", help="passages of each library (default: 100)")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.glue.docstring_tasks import write_docstring_tasks
    from entropy_mask_plugin.system.errors import require

    require("--train", args.train, args.train >= 1, "1 or more")
    require("--dev", args.dev, args.dev >= 1, "1 or more")
    require("--out", f"{args.out}, which exists,", not os.path.exists(args.out), "a new folder")
    write_docstring_tasks(args.out, args.train, args.dev)


if __name__ == "__main__":
    main()
