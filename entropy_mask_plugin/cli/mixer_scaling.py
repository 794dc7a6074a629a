"""How do self-attention and additive attention grow with the length of a sentence?

    %(prog)s --out mixers

Prints a table, and leaves it with a picture in --out. A minute on two cores.
"""


def add_arguments(parser):
    parser.add_argument("--out", required=True, metavar="DIR", help="where mixers.md, .json and .png go")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192], metavar="T")
    parser.add_argument("--width", type=int, default=512, metavar="N", help="(default: 512)")
    parser.add_argument("--tokens", type=int, default=8192, metavar="N", help="in all sentences (default: 8192)")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="of which the median is taken (default: 5)")
    parser.add_argument("--cpu", action="store_true", help="use the CPU where there is a GPU")


def run(args):
    from ..benchmark.mixers import benchmark_mixers  # takes seconds

    print(benchmark_mixers(**vars(args)))
