"""Where do two recordings of masks differ?

    %(prog)s A B

A and B are folders that fairseq-train wrote with --record-masks. Compared are the masked positions of each sample in
each epoch; the batch, the update and the rank in which they were masked do not matter. Prints the first difference and
a table by epoch: how many samples and masked positions both have, and their Jaccard overlap. Of recordings of other
text or blocks, only that is printed: the same sample is other text there.

Exit status: 0 = equal, 1 = different, 2 = a recording cannot be read.
"""

import sys


def add_arguments(parser):
    parser.add_argument("a", metavar="A", help="folder of a recording")
    parser.add_argument("b", metavar="B", help="folder of another")


def run(args):
    from ..recording.compare import compare
    from ..recording.reader import Recording
    from ..system.errors import UsageError

    try:
        difference = compare(Recording(args.a, "A"), Recording(args.b, "B"))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*(difference.lines or ["equal"]), sep="\n")
    if difference.table is not None:
        print("\n" + difference.table.markdown(["right"] * len(difference.table.header)))
    return 1 if difference.lines else 0
