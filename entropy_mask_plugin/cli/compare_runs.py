"""Compare training runs: a table, and their learning curves.

    %(prog)s RUN ... --dict DATA-BIN/dict.txt [--out DIR]

RUN is a --save-dir of fairseq-train whose output went to RUN/train.log (`fairseq-train … | tee -a RUN/train.log`).
Prints a table; with --out also writes comparison.md and comparison.png there.
"""

import os


def add_arguments(parser):
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--dict", required=True, metavar="FILE", help="dict.txt of the data-bin that they trained on")
    parser.add_argument("--out", metavar="DIR", help="where comparison.md and comparison.png go")
    parser.add_argument("--fine-tuned", metavar="DIR",
                        help="folder with a run of entropy-mask glue for each RUN, of the same name: adds their scores")
    parser.add_argument("--against", default="updates", metavar="AXIS",
                        help="what the curves are drawn over: updates (default), tokens, or hours of training, also of "
                             "resumed runs")


def run(args):
    from ..reporting import comparison, training_log
    from ..system.atomic_files import make_folder, write_text
    from ..system.errors import require
    from ..system.extras import require_extras

    require("--against", args.against, args.against in comparison.AGAINST, "one of " + ", ".join(comparison.AGAINST))
    runs = [training_log.read_pretraining_run(folder) for folder in args.runs]
    plateau = training_log.dictionary_unigram_entropy(args.dict)
    tuned = {}
    if args.fine_tuned:
        require_extras("glue")
        from ..glue.cells import read_fine_tuning_runs

        tuned = {run.name: read_fine_tuning_runs([os.path.join(args.fine_tuned, run.name)])[0] for run in runs}
    table = comparison.comparison_table(runs, plateau, tuned)
    text = "\n".join([table.markdown(), *comparison.plateau_warnings(runs, plateau)])
    print(text)
    if args.out:
        make_folder(args.out, "--out")
        write_text(os.path.join(args.out, "comparison.md"), text + "\n")
        picture = os.path.join(args.out, "comparison.png")
        comparison.draw_comparison(runs, plateau, picture, args.against)
        print(f"\npicture: {picture}")
