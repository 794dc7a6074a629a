"""Import and export of Hugging Face BERTs. Read in this order:

    source.py       a folder (or a name on the hub) and its files; code in them is never run
    config.py       config.json <-> our sizes; models that are not BERT are refused
    vocabulary.py   token ids: Hugging Face's order <-> fairseq's
    weights.py      names and layouts of tensors, both ways
    sentencepiece_model.py, wordpiece.py, tokenizer_files.py   the tokenizer of a corpus or checkpoint
    importing.py    folder -> checkpoint of ours
    exporting.py    checkpoint -> folder that transformers loads
    fast_tokenizer.py, model_card.py   the other files of an export

Neither import nor export needs the package `transformers`.
"""
