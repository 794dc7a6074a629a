#!/usr/bin/env python3
"""Compute a teacher's entropies ahead of the trainings that will read them.

    python scripts/build_entropy_cache.py corpora/mine/bin --teacher teacher.pt --entropy-cache cache

Give the flags of the training: other block lengths are other entropies. Interrupted and called again, it goes on where
it was; called twice at once, both share the work.
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data-bin; several shards separated by colons")
    parser.add_argument("--teacher", required=True, metavar="PATH")
    parser.add_argument("--entropy-cache", required=True, metavar="DIR")
    for flag, value in (("--tokens-per-sample", 512), ("--sample-break-mode", "none"), ("--shorten-method", "none"),
                        ("--shorten-data-split-list", ""), ("--precision", "fp32"), ("--train-subset", "train")):
        parser.add_argument(flag, type=type(value), default=value, help="as in the training (default: %(default)s)")
    parser.add_argument("--entropy-precision", choices=("fp32", "bf16"), help="as in the training (default: unset)")
    parser.add_argument("--cpu", action="store_true", help="use the processor where there is a GPU")
    return parser.parse_args()


def main():
    args = parse()  # before the imports, which take seconds
    from fairseq import utils

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.config import EntropyMaskedLMConfig
    from entropy_mask_plugin.pretrained.teacher import load_teacher
    from entropy_mask_plugin.task import EntropyMaskedLMTask

    cfg = EntropyMaskedLMConfig(**vars(args), seed=1, tpu=False)
    task = EntropyMaskedLMTask.setup_task(cfg, from_checkpoint=True)  # no training: nothing to go on from
    task.teacher = load_teacher(args.teacher, task)
    for epoch, _ in enumerate(utils.split_paths(args.data), 1):
        task.load_dataset(args.train_subset, epoch, combine=True)  # as the training does
        store = task.datasets[args.train_subset].dataset.entropies
        print(f"{int(store.ends[-1]):,} tokens of {utils.split_paths(args.data)[epoch - 1]}: {store.folder}")


if __name__ == "__main__":
    main()
