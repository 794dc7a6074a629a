#!/usr/bin/env python3
"""How far did fine-tuning move the weights, component by component?

    python scripts/weight_drift.py --pretrained a.pt --finetuned glue-runs/init/*/seed1/*/checkpoint_best.pt --out drift

Writes drift.csv, drift.png (relative Frobenius change) and drift-elementwise.png (mean element-wise percentage).
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", required=True, metavar="FILE")
    parser.add_argument("--finetuned", required=True, nargs="+", metavar="FILE")
    parser.add_argument("--out", required=True, metavar="NAME", help="of the files, without ending")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.reporting import drift  # takes seconds

    drift.write_drift(drift.drift_of_files(args.pretrained, args.finetuned), args.out)
    print(f"{args.out}.csv, {args.out}.png, {args.out}-elementwise.png")


if __name__ == "__main__":
    main()
