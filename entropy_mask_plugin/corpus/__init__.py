"""From text to the data-bin that fairseq-train reads. Read in this order:

    sources.py, docstrings.py, public_datasets.py   where documents come from
    splits.py                   which documents are for validation
    survey.py                   pass 1: a digest of the source, a sample for the tokenizer
    tokenizer_training.py       trains a SentencePiece model
    wordpiece.py                BERT's vocabularies instead
    encoding.py                 pass 2: documents to subword tokens
    binarize.py                 subword tokens to a data-bin, with fairseq-preprocess
    parts.py, index.py          the same in parts, for small disks; the data-bin's index files
    settings.py, folder.py      the requested corpus; the stages already finished
    build.py                    the stages in order, each run once
    progress.py                 progress bars

Nothing is imported here: `entropy-mask prepare-corpus` calls `build.prepare_corpus`.
"""
