"""How far did fine-tuning move the weights, component by component?

    %(prog)s --pretrained a.pt --finetuned glue-runs/init/*/seed1/*/checkpoint_best.pt --out drift

Writes drift.csv, drift.png (relative Frobenius change) and drift-elementwise.png (mean element-wise percentage).
"""


def add_arguments(parser):
    parser.add_argument("--pretrained", required=True, metavar="FILE")
    parser.add_argument("--finetuned", required=True, nargs="+", metavar="FILE")
    parser.add_argument("--out", required=True, metavar="NAME", help="of the files, without ending")


def run(args):
    from ..reporting import drift  # takes seconds

    drift.write_drift(drift.drift_of_files(args.pretrained, args.finetuned), args.out)
    print(f"{args.out}.csv, {args.out}.png, {args.out}-elementwise.png")
