#!/usr/bin/env python3
"""What does a training step of an arch cost, term by term?

    python scripts/flops.py --arch bertlet_3ml
    python scripts/flops.py --arch bert_base --length 512 --mask-prob 0.4 -- --encoder-layers 6

Words after -- are flags of the arch. Counted are matrix products; one MAC is two FLOPs.
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--length", type=int, default=128, metavar="T", help="tokens of a block (default: 128)")
    parser.add_argument("--vocabulary", type=int, default=30522, metavar="V", help="(default: 30522)")
    parser.add_argument("--mask-prob", type=float, help="(default: the arch's)")
    parser.add_argument("--leave-unmasked-prob", type=float, help="(default: the arch's)")
    parser.add_argument("--random-token-prob", type=float, help="(default: the arch's)")
    parser.add_argument("flags", nargs="*", metavar="-- --encoder-…", help="flags of the arch")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.reporting.flops_table import flops_report  # takes seconds

    print(flops_report(args))


if __name__ == "__main__":
    main()
