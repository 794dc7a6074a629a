"""Hugging Face BERTs in and out. Read in this order:

    source.py       a folder (or a name on the hub) and its files, nothing in them executed
    config.py       config.json <-> our sizes; what is not BERT is refused by name
    vocabulary.py   which id is which: Hugging Face's order <-> fairseq's
    weights.py      names and layouts of tensors, both ways
    wordpiece.py, tokenizer_files.py   the tokenizer of a corpus or checkpoint
    importing.py    folder -> checkpoint of ours
    exporting.py    checkpoint -> folder that transformers loads
    fast_tokenizer.py, model_card.py   what an export needs beside the weights

Neither way needs the package `transformers`.
"""
