#!/usr/bin/env python3
"""What do two models put at [MASK]?   python fill_masks.py ORIGINAL ADAPTED "The patient was given [MASK]." …

ORIGINAL and ADAPTED are Hugging Face folders or names. Needs the package `transformers`.
"""

import sys

import transformers


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__.split("\n")[0])
    transformers.logging.set_verbosity_error()
    folders = sys.argv[1:3]
    fill = [transformers.pipeline("fill-mask", folder, top_k=5) for folder in folders]
    for sentence in sys.argv[3:]:
        print(sentence)
        for folder, model in zip(folders, fill):
            words = ", ".join(f"{guess['token_str']} {guess['score']:.0%}" for guess in model(sentence))
            print(f"  {folder}: {words}")


if __name__ == "__main__":
    main()
