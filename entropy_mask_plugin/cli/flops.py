"""What does a training step of an arch cost, term by term?

    %(prog)s --arch bertlet_3ml
    %(prog)s --arch bert_base --length 512 --mask-prob 0.4 -- --encoder-layers 6

Words after -- are flags of the arch. Counted are matrix products; one MAC is two FLOPs.
"""


def add_arguments(parser):
    parser.add_argument("--arch", required=True)
    parser.add_argument("--length", default="128", metavar="T",
                        help="positions of a block (default: 128), or FIRST:LAST as of --tokens-per-sample: table for "
                             "the last, and what a training step costs at each")
    parser.add_argument("--vocabulary", type=int, default=30522, metavar="V", help="(default: 30522)")
    parser.add_argument("--mask-prob", type=float, help="(default: the arch's)")
    parser.add_argument("--leave-unmasked-prob", type=float, help="(default: the arch's)")
    parser.add_argument("--random-token-prob", type=float, help="(default: the arch's)")
    parser.add_argument("flags", nargs="*", metavar="-- --encoder-…", help="flags of the arch")


def run(args):
    from ..reporting.flops_table import flops_report  # takes seconds

    print(flops_report(args))
