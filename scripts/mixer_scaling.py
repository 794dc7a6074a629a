#!/usr/bin/env python3
"""How do self-attention and additive attention grow with the length of a sentence?

    python scripts/mixer_scaling.py --out mixers

Prints a table, and leaves it with a picture in --out. A minute on two cores.
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, root)  # the package beside this script, also in the processes that measure
os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="where mixers.md, .json and .png go")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192], metavar="T")
    parser.add_argument("--width", type=int, default=512, metavar="N", help="(default: 512)")
    parser.add_argument("--tokens", type=int, default=8192, metavar="N", help="in all sentences (default: 8192)")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="of which the median is taken (default: 5)")
    parser.add_argument("--cpu", action="store_true", help="use the processor where there is a GPU")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.benchmark.mixers import benchmark_mixers  # takes seconds

    print(benchmark_mixers(**vars(args)))


if __name__ == "__main__":
    main()
