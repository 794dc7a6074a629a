#!/usr/bin/env python3
"""Turn a checkpoint into a folder that transformers loads, without code of its own.

    python scripts/export_hf_bert.py --checkpoint runs/init/checkpoint_best.pt --out models/init

A pretrained checkpoint becomes a BertForMaskedLM, one that `sentence_prediction` has fine-tuned a
BertForSequenceClassification, one with a mask decoder (--arch …_3ml) a BertModel: its encoder. Its
tokenizer goes with it, and a model card with the training flags.
"""

import argparse
import logging
import os
import sys

logging.basicConfig(level=logging.WARNING)  # before fairseq: one of its modules would set DEBUG for everybody
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the package beside this script


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="written by fairseq-train")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--tokenizer", metavar="PATH",
                        help="tokenizer.model, vocab.txt or Hugging Face folder (default: looked for beside the "
                             "checkpoint, then in the corpus that it was trained on)")
    parser.add_argument("--architecture", metavar="CLASS", help="BertModel: the encoder alone, of any checkpoint")
    args = parser.parse_args()

    from entropy_mask_plugin import register

    register()
    from entropy_mask_plugin.huggingface.exporting import export_bert  # takes seconds

    print(f"{args.out}: {export_bert(args.checkpoint, args.out, args.tokenizer, args.architecture)}")


if __name__ == "__main__":
    main()
