#!/usr/bin/env python3
"""Compare training runs:   python scripts/compare_runs.py RUN ... --dict DATA-BIN/dict.txt [--out DIR]

RUN is a --save-dir of fairseq-train whose output went to RUN/train.log (`fairseq-train … | tee -a RUN/train.log`).
Prints a table; with --out also writes comparison.md and comparison.png there.
"""

import argparse
import logging
import sys
from pathlib import Path

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this script

from entropy_mask_plugin.glue.cells import read_fine_tuning_runs  # noqa: E402
from entropy_mask_plugin.reporting import comparison, training_log  # noqa: E402
from entropy_mask_plugin.system.atomic_files import write_text  # noqa: E402
from entropy_mask_plugin.system.errors import show_usage_errors_as_one_line  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--dict", required=True, metavar="FILE", help="dict.txt of the data-bin that they trained on")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where comparison.md and comparison.png go")
    parser.add_argument("--fine-tuned", type=Path, metavar="DIR",
                        help="folder with a finetune_glue.py run for each RUN, of the same name: adds their scores")
    parser.add_argument("--against", choices=comparison.AGAINST, default="updates",
                        help="what the curves are drawn over (hours: training time, also of resumed runs)")
    args = parser.parse_args()

    show_usage_errors_as_one_line()
    runs = [training_log.read_pretraining_run(folder) for folder in args.runs]
    plateau = training_log.dictionary_unigram_entropy(args.dict)
    tuned = {}
    if args.fine_tuned:
        tuned = {run.name: read_fine_tuning_runs([str(args.fine_tuned / run.name)])[0] for run in runs}
    text = "\n".join([comparison.comparison_table(runs, plateau, tuned).markdown(),
                      *comparison.plateau_warnings(runs, plateau)])
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_text(args.out / "comparison.md", (text + "\n"))
        comparison.draw_comparison(runs, plateau, str(args.out / "comparison.png"), args.against)
        print(f"\npicture: {args.out / 'comparison.png'}")


if __name__ == "__main__":
    main()
