"""Fine-tune a checkpoint on GLUE and report its scores.

    %(prog)s --checkpoint runs/init/checkpoint_best.pt --glue glue --out glue-runs/init
    %(prog)s --checkpoint … --from-hub --tasks cola,rte --seeds 1 2 --protocol standard --out …

Rerun the same command to resume. Arguments after -- go to fairseq-train and override these.
"""

import sys

EPILOG = """
output in RUN:
  TASK/seedN/predictions.tsv    index, gold, predicted, probabilities: every score is computed from these
  TASK/seedN/POINT/             the best checkpoint and the log of each point of the grid (one in the paper's)
  data/TASK/                    the binarised task
  table.md, .csv, .json, .tex, .png    what entropy-mask glue-table makes of it
"""
SETTABLE = {"lr": "learning_rates", "batch_size": "batch_sizes", "max_epochs": "max_epochs", "patience": "patience",
            "warmup": "warmup", "weight_decay": "weight_decay", "best": "best"}


def add_arguments(parser):
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="a pretrained model of this plug-in")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder of the run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--glue", metavar="DIR", help="folder with CoLA, MRPC, … as GLUE ships them")
    source.add_argument("--from-hub", action="store_true", help="fetch nyu-mll/glue by the package `datasets`")
    parser.add_argument("--tasks", default="all", metavar="T,T,…",
                        help="all, or some of cola,sst-2,mrpc,sts-b,qqp,mnli,qnli,rte,wnli (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2, as the paper")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="fine-tuning runs in parallel (default: 1)")
    parser.add_argument("--data", metavar="DIR", help="where the binarised tasks are kept; runs of models with one "
                                                      "vocabulary can share it (default: RUN/data)")
    parser.add_argument("--tokenizer", metavar="PATH", help="default: next to the checkpoint or its training data")
    group = parser.add_argument_group("protocol")
    group.add_argument("--protocol", choices=("paper", "standard"), default="paper",
                       help="paper: lr 5e-5, batch 256, up to 50 epochs, patience 5 on the dev loss, lowest dev loss "
                            "counts. standard: RoBERTa's grid, warm-up 6 %%, best dev metric counts (default: paper)")
    group.add_argument("--lr", type=float, nargs="+", metavar="X", help="learning rates; several make a grid")
    group.add_argument("--batch-size", type=int, nargs="+", metavar="N", help="batch sizes; several make a grid")
    group.add_argument("--max-epochs", type=int, metavar="N")
    group.add_argument("--patience", type=int, metavar="N", help="epochs without improvement before the end; -1: none")
    group.add_argument("--warmup", type=float, metavar="X", help="fraction of the updates")
    group.add_argument("--weight-decay", type=float, metavar="X")
    group.add_argument("--best", choices=("loss", "metric"), help="which epoch counts, on the dev set")
    group.add_argument("--freeze-encoder", action="store_true",
                       help="train the classifier alone, one epoch unless --max-epochs says more (paper, section 3.3)")
    group.add_argument("--limit", type=int, metavar="N", help="the first N rows of each file only, for a quick look")


def run(args):
    from ..glue import report, run
    from ..glue.protocols import PROTOCOLS
    from ..glue.tasks import GLUE

    changes = {field: getattr(args, flag) for flag, field in SETTABLE.items() if getattr(args, flag) is not None}
    if args.freeze_encoder:
        changes.setdefault("max_epochs", 1)
    tasks = list(GLUE) if args.tasks == "all" else args.tasks.lower().split(",")
    finished, failures = run.fine_tune(run.FineTuningSettings(
        checkpoint=args.checkpoint, out=args.out, protocol=PROTOCOLS[args.protocol]._replace(**changes), tasks=tasks,
        seeds=args.seeds, glue=args.glue, tokenizer=args.tokenizer, freeze_encoder=args.freeze_encoder,
        limit=args.limit, jobs=args.jobs, data=args.data, extra_args=args.extra_args,
    ))
    if finished:
        print(report.write_glue_report([args.out], args.out))
    for task, seed, sentence in failures:
        print(f"failed: {task}, seed {seed}: {sentence}", file=sys.stderr)
    return int(bool(failures))
