"""Turn a checkpoint into a folder that transformers loads, without code of its own.

    %(prog)s --checkpoint runs/init/checkpoint_best.pt --out models/init

A pretrained checkpoint becomes a BertForMaskedLM, one that `sentence_prediction` has fine-tuned a
BertForSequenceClassification, one with a mask decoder (--arch …_3ml) a BertModel: its encoder. Its
tokenizer goes with it, and a model card with the training flags.
"""


def add_arguments(parser):
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="written by fairseq-train")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--tokenizer", metavar="PATH",
                        help="tokenizer.model, vocab.txt or Hugging Face folder (default: next to the "
                             "checkpoint, then in the corpus that it was trained on)")
    parser.add_argument("--architecture", metavar="CLASS", help="BertModel: the encoder alone, of any checkpoint")


def run(args):
    from ..huggingface.exporting import export_bert  # takes seconds

    print(f"{args.out}: {export_bert(args.checkpoint, args.out, args.tokenizer, args.architecture)}")
