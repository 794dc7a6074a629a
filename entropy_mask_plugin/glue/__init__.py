"""Fine-tuning on GLUE and a table of what came out. Read in this order:

    tasks.py       the nine tasks: files, columns, classes, metrics
    reading.py     GLUE's own files, quirks included, or the hub's copy
    binarize.py    text to fairseq's input0, input1 and label, by the checkpoint's own tokenizer
    protocols.py   the paper's hyper-parameters and the official ones
    unit.py        one (task, seed): train, predict, record; killed and started again, it goes on
    predict.py     predictions.tsv of the chosen checkpoint
    metrics.py     every score, from predictions.tsv
    bootstrap.py   intervals of differences
    run.py         all units, several at once
    table.py       cells, averages, comparisons, in Markdown, CSV, JSON, LaTeX
    picture.py     the same to look at
    drift.py       how far fine-tuning moved the weights
"""
