"""Measure every model's loss on every other policy's masks.

    %(prog)s runs/random runs/high runs/surprisal --out runs/cross

RUN is a --save-dir of fairseq-train with --task entropy_masked_lm, or a checkpoint of one. The policy of each run
masks the validation text once, by its own last checkpoint and with its own flags, and every model predicts the masked
tokens of every policy; random masks are always among them. Rerun the same command to resume.
"""

EPILOG = """
output in DIR:
  cross.md, .csv, .json, .png          the matrix, and a picture of it
"""


def add_arguments(parser):
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument("--data", metavar="BIN", help="data-bin whose validation split is masked (default: that of the "
                                                      "first run's training)")
    parser.add_argument("--teacher", metavar="PATH", help="teacher of the runs whose masks one chooses (default: where "
                                                          "it was in their training)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N blocks only")
    parser.add_argument("--max-tokens", type=int, default=4096, metavar="N",
                        help="tokens in a batch, for speed and memory (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="where the results go (default: they are only printed)")


def run(args):
    from ..inspection import cross
    from ..system.atomic_files import make_folder

    if args.out:
        make_folder(args.out, "--out")
    result = cross.cross(args.runs, args.data, args.teacher, args.limit, args.max_tokens, args.out)
    print(cross.markdown(result))
    if args.out:
        cross.write_results(args.out, result)
