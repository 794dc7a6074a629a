#!/usr/bin/env python3
"""Fine-tunings side by side.

    python scripts/glue_table.py glue-runs/random glue-runs/init --baseline random --out tables
    python scripts/glue_table.py glue-runs/init --paper "BERTlet random" "BERTlet high, init" --out tables

RUN is the --out of finetune_glue.py. Every score is computed anew from the predictions.tsv files.
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", required=True, metavar="DIR", help="where table.md, .csv, .json, .tex and .png go")
    parser.add_argument("--baseline", metavar="NAME", help="folder name of the run to compare the others with")
    parser.add_argument("--paper", nargs="+", default=[], metavar="ROW", help="rows of the paper to put beside")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.glue import report  # takes seconds

    print(report.write_glue_report(args.runs, args.out, args.baseline, args.paper))


if __name__ == "__main__":
    main()
