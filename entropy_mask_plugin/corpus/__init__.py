"""From text to the data-bin that fairseq-train reads. Read in this order:

    sources.py, docstrings.py, public_datasets.py   where documents come from
    splits.py                   which documents are for validation
    survey.py                   pass 1: what the source holds, a sample for the tokenizer
    tokenizer.py                training or checking a SentencePiece model, and fairseq's dictionary
    wordpiece.py                the same for BERT's vocabularies
    encoding.py                 pass 2: documents to pieces
    binarize.py                 pieces to a data-bin, by fairseq-preprocess
    settings.py, folder.py      what is asked for; what is already there
    build.py                    the stages in order, each finished once
    progress.py                 what a waiting person sees

Nothing is imported here: `entropy-mask prepare-corpus` calls `build.prepare_corpus`.
"""
