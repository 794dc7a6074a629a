"""Rerun the paper's experiments.

    %(prog)s teacher-masking --scale small --data corpora/mine/bin --glue glue --out studies/small
    %(prog)s teacher-masking self-masking distillation --scale paper --arch bertlet --teacher bert …

Each row of a table is pretrained and fine-tuned with each seed; the teacher, its entropies and the binarised tasks are
made once. Rerun the same command to resume. Studies that run together share their rows.
Arguments after -- go to every fairseq-train that pretrains and override the scale's (--cpu: to all of them).
"""

USAGE = "%(prog)s STUDY [STUDY …] --scale S --data DATA-BIN --glue DIR --out RUN [options] [-- FLAG …]"
EPILOG = """
studies:
  teacher-masking  table 1: random, high, low, marginal, alternating, mid, and three rows that the paper does not have:
                   random-static (masks that repeat, as a static teacher's do), the teacher itself, no pretraining
  self-masking     table 2: cold start, init
  frozen           section 3.3: the encoder frozen while fine-tuning
  masking-rate     section 3.4: 40 %%, one token
  corpus           section 3.5: two corpora (--data A B, with the same vocabulary)
  distillation     section 3.6: KD only, complete transfer, after initialization
  drift            section 3.7: how far fine-tuning moves the weights
  adaptive         not in the paper: policies that choose masks and train at the same time, each next to random masks
                   at the same rate

output in RUN:
  report.html                                   everything, in one file
  report.md, .csv, .tex, *.png                  the same in parts
  ROW/CORRUPTION/seedN/record.json              commands, versions, curves, FLOPs, time, memory
  ROW/CORRUPTION/seedN/fine-tuning/TASK/seedN/predictions.tsv     every score is computed from these
"""


def add_arguments(parser):
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="one or more, see below")
    parser.add_argument("--scale", required=True,
                        help="smoke: does it work, minutes; small: two cores and hours; paper: a GPU and days")
    parser.add_argument("--data", required=True, nargs="+", metavar="DATA-BIN", help="what to pretrain on; two for "
                                                                                     "the study `corpus`")
    parser.add_argument("--glue", required=True, metavar="DIR", help="folder with CoLA, MRPC, … as GLUE ships them")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder for all results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2, as the paper")
    parser.add_argument("--arch", default="bertlet", help="bertlet (default) or bert_base, in the scale's size")
    parser.add_argument("--corruption", nargs="+", default=["all-mask"], metavar="C",
                        help="all-mask (default, the paper's), 80-10-10 (BERT's), or all-mask 80-10-10; rows are "
                             "compared with random masks under the same one")
    parser.add_argument("--teacher", metavar="PATH", help="checkpoint or Hugging Face BERT (default: one is trained as "
                                                          "the scale says, with random masks and 80/10/10)")
    parser.add_argument("--tasks", metavar="T,T,…", help="of GLUE (default: the scale's)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these of the studies' rows")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each pretraining (default: the scale's)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows at once; they share the cores, and take "
                                                                         "turns at the GPUs (default: 1)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="print every command that would run, and stop")
    what.add_argument("--report-only", action="store_true",
                      help="run nothing, report what is finished of these studies, rows and seeds; give the flags "
                           "that they were run with")


def run(args):
    from ..studies import identity, plan, report, run
    from ..studies.options import StudyOptions, resolve

    options = resolve(StudyOptions(
        studies=args.studies, scale=args.scale, data=args.data, glue=args.glue, out=args.out, seeds=args.seeds,
        arch=args.arch, corruptions=args.corruption, teacher=args.teacher, epochs=args.epochs, jobs=args.jobs,
        tasks=args.tasks and args.tasks.lower().split(","), conditions=args.rows, extra_args=args.extra_args,
    ))
    if args.dry_run:
        identity.refuse_another(options.out, identity.identity(options))
        print(*run.commands(plan.plan_of(options)), sep="\n")
        return None
    failures = [] if args.report_only else run.run_study(options)
    wanted = len(plan.plan_of(options))
    if len(failures) == wanted:
        return "error: all rows failed, see above"
    print(report.write_study_report(options))
    return f"error: {len(failures)} of {wanted} rows and seeds failed, see above" if failures else None
