"""Turn a Hugging Face BERT into a checkpoint for fairseq.

    %(prog)s --hf bert-base-uncased --out models/bert-base-uncased
    %(prog)s --hf FOLDER --out DIR
"""

import os

EPILOG = """
output in DIR:
  model.pt             for --teacher, --finetune-from-model (which, unlike --restore-file, lets a killed run go on)
                       and fine-tuning
  flags.txt            its --arch and sizes as flags of fairseq-train
  dict.txt             fairseq's dictionary; a corpus has the same after entropy-mask prepare-corpus --bert-vocab DIR
  tokenizer.json …     the tokenizer as it came
"""


def add_arguments(parser):
    parser.add_argument("--hf", required=True, metavar="FOLDER-OR-NAME",
                        help="folder with config.json, model.safetensors (or pytorch_model.bin) and tokenizer.json (or "
                             "vocab.txt), or a name on the hub")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")


def run(args):
    from ..huggingface import importing  # takes seconds

    bert = importing.import_bert(args.hf, args.out)
    for what in bert.left_out:
        print(f"left out: the {what}")
    if not bert.has_head:
        print("no masked-LM head found: model.pt has a fresh one, good to be trained further and fine-tuned, "
              "no good as a teacher")
    print(f"for fairseq-train: --finetune-from-model {os.path.join(args.out, 'model.pt')} "
          + " ".join(importing.architecture_flags(bert.config)))
