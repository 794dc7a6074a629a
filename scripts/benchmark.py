#!/usr/bin/env python3
"""How long does a training step take, beside transformers' and fairseq's own?

    python scripts/benchmark.py --quick --out benchmark        one arch, three rounds: some minutes on two cores
    python scripts/benchmark.py --out benchmark                both archs, 128 and 512 positions, fp32 and bf16

Everything runs in one process, on the same made-up text, in rounds of rotating order. Needs transformers.
"""

import argparse
import logging
import os
import sys
import warnings

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
os.environ.setdefault("PYTHONWARNINGS", "ignore")
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, root)  # the package beside this script, also in the processes whose memory is measured
os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="where benchmark.md, .json and .png go")
    parser.add_argument("--quick", action="store_true", help="bertlet, 128 positions, fp32, 3 rounds, no memory")
    parser.add_argument("--archs", nargs="+", metavar="ARCH")
    parser.add_argument("--lengths", nargs="+", type=int, metavar="T")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"))
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="default: all but 3ML and 50 %% masks")
    parser.add_argument("--batch-tokens", type=int, metavar="N", help="default: 1024, on a GPU 32768")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 7")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of a variant in a round (default: 1, GPU: 20)")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure the peak memory")
    parser.add_argument("--cpu", action="store_true", help="use the processor where there is a GPU")
    return parser.parse_args()


def main():
    args = parse()  # before the imports, which take seconds
    from entropy_mask_plugin.benchmark import run

    print(run.benchmark(run.settled(**vars(args))))


if __name__ == "__main__":
    main()
