"""How long does a training step take, compared with transformers' and fairseq's own?

    %(prog)s --quick --out benchmark        one arch, three rounds: some minutes on two cores
    %(prog)s --out benchmark                both archs, 128 and 512 positions, fp32 and bf16
    %(prog)s --out gpu --stages machine sanity kernels step prototypes --budget 480

Everything runs in one process, on the same made-up text, in rounds of rotating order. Needs transformers.
With --stages, other measurements, each in a process of its own; results.jsonl grows as they go, summary.md is the end.
"""

import logging
import os
import warnings


def add_arguments(parser):
    from ..benchmark.stages import STAGES

    parser.epilog = "\n".join(["stages:", *(f"  {name:<16}{stage.summary}" for name, stage in STAGES.items())])
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
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="run these instead (see below)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of --stages: end by then (default: no end)")
    parser.add_argument("--tiny", action="store_true", help="of --stages: a dry run with next to nothing to compute")
    parser.add_argument("--checkpoint", metavar="FILE", help="of --stages masks: a trained model")
    parser.add_argument("--data", metavar="DATA-BIN", help="of --stages masks: its text")


def run(args):
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    args = vars(args)
    names, budget, *more = (args.pop(name) for name in ("stages", "budget", "tiny", "checkpoint", "data"))
    if names:
        from ..benchmark.stages import StageOptions, run_benchmark_stages

        options = StageOptions(args["archs"] or ["bertlet", "bert_base"], 0, *more)
        outcomes = run_benchmark_stages(names, args["out"], options, budget)
        return int(any(outcome != "passed" for outcome in outcomes.values()))
    from .. import register

    register()
    from ..benchmark import run

    print(run.benchmark(run.with_defaults(**args)))
