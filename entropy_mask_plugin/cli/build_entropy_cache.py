"""Compute a teacher's entropies before the training runs that will read them.

    %(prog)s corpora/mine/bin --teacher teacher.pt --entropy-cache cache

Use the same flags as for training: entropies depend on the block length, for example. For growing
blocks (--tokens-per-sample 32:128), those of every length are computed. Rerun the same command
to resume; two processes at the same time share the work.
"""


def add_arguments(parser):
    from dataclasses import fields, make_dataclass

    from fairseq.dataclass.utils import gen_parser_from_dataclass

    from ..config import EntropyMaskedLMConfig, names_with, with_options

    parser.add_argument("data", help="data-bin; several shards separated by colons")
    parser.add_argument("--teacher", required=True, metavar="PATH", help="checkpoint, or Hugging Face folder of a BERT")
    parser.add_argument("--entropy-cache", required=True, metavar="DIR", help="where the entropies are stored")
    parser.add_argument("--train-subset", default="train", help="as in the training (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    training = parser.add_argument_group("as in the training")
    decisive = [(field.name, field.type, field) for field in fields(with_options(EntropyMaskedLMConfig))
                if field.name in names_with("scores") and "help" in field.metadata]
    gen_parser_from_dataclass(training, make_dataclass("Decisive", decisive, bases=(EntropyMaskedLMConfig.__base__,))())


def run(args):
    from ..config import EntropyMaskedLMConfig, lengths_of, with_length, with_options
    from ..flag_checks import check_parts

    cfg = with_options(EntropyMaskedLMConfig)(**vars(args), seed=1, tpu=False)
    check_parts(cfg)
    for length in lengths_of(cfg.tokens_per_sample):
        build(with_length(cfg, length), args)


def build(cfg, args):
    """The caches of all shards for blocks of one length."""
    from fairseq import utils

    from ..pretrained.teacher import load_teacher
    from ..scoring.contextual import compare_with_visible
    from ..task import EntropyMaskedLMTask

    task = EntropyMaskedLMTask.setup_task(cfg, from_checkpoint=True)  # no training: nothing to go on from
    task.teacher = load_teacher(args.teacher, task)
    for epoch, _ in enumerate(utils.split_paths(args.data), 1):
        task.load_dataset(args.train_subset, epoch, combine=True)  # as the training does
        samples = task.datasets[args.train_subset].dataset
        store = samples.entropies
        print(f"{int(store.ends[-1]):,} tokens of {utils.split_paths(args.data)[epoch - 1]}: {store.folder}")
        if args.entropy_folds > 1:
            device = task.scoring_device()
            correlation, n_blocks = compare_with_visible(
                samples, store, task.scorer, task.teacher_on(device), task.max_positions(), device)
            print(f"Spearman's rank correlation with the scores of visible tokens, within a sequence: "
                  f"{correlation:.3f}, the mean over {n_blocks} of {len(samples):,} blocks")
