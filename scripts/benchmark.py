#!/usr/bin/env python3
"""How long does a training step take, beside transformers' and fairseq's own?

    python scripts/benchmark.py --quick --out benchmark        one arch, three rounds: some minutes on two cores
    python scripts/benchmark.py --out benchmark                both archs, 128 and 512 positions, fp32 and bf16
    python scripts/benchmark.py --out gpu --stages machine sanity kernels step prototypes --budget 480

Everything runs in one process, on the same made-up text, in rounds of rotating order. Needs transformers.
With --stages, other measurements, each in a process of its own; results.jsonl grows as they go, summary.md is the end:
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
    from entropy_mask_plugin.benchmark.stages import STAGES

    stages = "\n".join(f"    {name:<16}{stage.summary}" for name, stage in STAGES.items())
    parser = argparse.ArgumentParser(description=f"{__doc__}\n{stages}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--cpu", action="store_true", help="use the CPU where there is a GPU")
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="run these instead (see above)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of --stages: end by then (default: no end)")
    parser.add_argument("--tiny", action="store_true", help="of --stages: a dry run with next to nothing to compute")
    parser.add_argument("--checkpoint", metavar="FILE", help="of --stages masks: a trained model")
    parser.add_argument("--data", metavar="DATA-BIN", help="of --stages masks: its text")
    return parser.parse_args()


def main():
    args = vars(parse())
    names, budget, *more = (args.pop(name) for name in ("stages", "budget", "tiny", "checkpoint", "data"))
    if names:
        from entropy_mask_plugin.benchmark.stages import StageOptions, run_benchmark_stages
        from entropy_mask_plugin.system.errors import show_usage_errors_as_one_line

        show_usage_errors_as_one_line()
        options = StageOptions(args["archs"] or ["bertlet", "bert_base"], 0, *more)
        outcomes = run_benchmark_stages(names, args["out"], options, budget)
        sys.exit(any(outcome != "passed" for outcome in outcomes.values()))
    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.benchmark import run

    print(run.benchmark(run.with_defaults(**args)))


if __name__ == "__main__":
    main()
