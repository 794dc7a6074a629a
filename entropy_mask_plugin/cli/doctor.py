"""Would training work here?

    %(prog)s [--data DIR] [--teacher CHECKPOINT-OR-FOLDER]

One line per problem, with its fix. Exit status 1 when training would fail.
"""


def add_arguments(parser):
    parser.add_argument("--data", metavar="DIR", help="data-bin, or several separated by colons, to be trained on")
    parser.add_argument("--teacher", metavar="PATH", help="checkpoint or Hugging Face folder to be used as --teacher")


def run(args):
    from .. import doctor

    return doctor.print_findings(args.data, args.teacher)
