"""Compare fine-tuning runs side by side.

    %(prog)s glue-runs/random glue-runs/init --baseline random --out tables
    %(prog)s glue-runs/init --paper "BERTlet random" "BERTlet high, init" --out tables

RUN is the --out of entropy-mask glue. Every score is computed anew from the predictions.tsv files.
"""


def add_arguments(parser):
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", required=True, metavar="DIR", help="where table.md, .csv, .json, .tex and .png go")
    parser.add_argument("--baseline", metavar="NAME", help="folder name of the run to compare the others with")
    parser.add_argument("--paper", nargs="+", default=[], metavar="ROW", help="rows of the paper to add")


def run(args):
    from ..glue import report  # takes seconds

    print(report.write_glue_report(args.runs, args.out, args.baseline, args.paper))
