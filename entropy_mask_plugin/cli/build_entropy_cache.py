"""Compute a teacher's entropies ahead of the trainings that will read them.

    %(prog)s corpora/mine/bin --teacher teacher.pt --entropy-cache cache

Give the flags of the training: other block lengths are other entropies. Rerun the same
command to resume; two at once share the work.
"""


def add_arguments(parser):
    parser.add_argument("data", help="data-bin; several shards separated by colons")
    parser.add_argument("--teacher", required=True, metavar="PATH")
    parser.add_argument("--entropy-cache", required=True, metavar="DIR")
    for flag, value in (("--tokens-per-sample", 512), ("--sample-break-mode", "none"), ("--shorten-method", "none"),
                        ("--shorten-data-split-list", ""), ("--precision", "fp32"), ("--train-subset", "train")):
        parser.add_argument(flag, type=type(value), default=value, help="as in the training (default: %(default)s)")
    parser.add_argument("--entropy-precision", choices=("fp32", "bf16"), help="as in the training (default: unset)")
    parser.add_argument("--cpu", action="store_true", help="use the CPU where there is a GPU")


def run(args):
    from fairseq import utils

    from ..config import EntropyMaskedLMConfig
    from ..pretrained.teacher import load_teacher
    from ..task import EntropyMaskedLMTask

    cfg = EntropyMaskedLMConfig(**vars(args), seed=1, tpu=False)
    task = EntropyMaskedLMTask.setup_task(cfg, from_checkpoint=True)  # no training: nothing to go on from
    task.teacher = load_teacher(args.teacher, task)
    for epoch, _ in enumerate(utils.split_paths(args.data), 1):
        task.load_dataset(args.train_subset, epoch, combine=True)  # as the training does
        store = task.datasets[args.train_subset].dataset.entropies
        print(f"{int(store.ends[-1]):,} tokens of {utils.split_paths(args.data)[epoch - 1]}: {store.folder}")
