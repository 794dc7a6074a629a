#!/usr/bin/env python3
"""Turn a Hugging Face BERT into a checkpoint for fairseq.

    python scripts/import_hf_bert.py --hf bert-base-uncased --out models/bert-base-uncased
    python scripts/import_hf_bert.py --hf FOLDER --out DIR
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script

LEAVES = """
what it leaves in DIR:
  model.pt             for --teacher, --finetune-from-model (which, unlike --restore-file, lets a killed run go on)
                       and fine-tuning
  flags.txt            its --arch and sizes as flags of fairseq-train
  dict.txt             fairseq's dictionary; a corpus has the same after prepare_corpus.py --bert-vocab DIR
  tokenizer.json …     the tokenizer as it came
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=LEAVES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hf", required=True, metavar="FOLDER-OR-NAME",
                        help="folder with config.json, model.safetensors (or pytorch_model.bin) and tokenizer.json (or "
                             "vocab.txt), or a name on the hub")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.huggingface import importing  # takes seconds

    bert = importing.import_bert(args.hf, args.out)
    for what in bert.left_out:
        print(f"left out: the {what}")
    if not bert.has_head:
        print("no masked-LM head found: model.pt has a fresh one, good to be trained further and fine-tuned, "
              "no good as a teacher")
    print(f"for fairseq-train: --finetune-from-model {os.path.join(args.out, 'model.pt')} "
          + " ".join(importing.architecture_flags(bert.config)))


if __name__ == "__main__":
    main()
