"""Fine-tuning on GLUE and tables of its scores. Read in this order:

    tasks.py       the nine tasks: files, columns, classes, metrics
    reading.py     GLUE's own files, quirks included, or the hub's copy
    binarize.py    text to fairseq's input0, input1 and label, by the checkpoint's own tokenizer
    protocols.py   the paper's hyper-parameters and the official ones
    trial.py       one (task, seed): train, predict, record; a killed one resumes
    predict.py     predictions.tsv of the chosen checkpoint
    metrics.py     every score, from predictions.tsv
    bootstrap.py   intervals of differences
    run.py         all trials, several at once
    table.py       cells, averages, comparisons, in Markdown, CSV, JSON, LaTeX
    picture.py     the same to look at
    report.py      tables and picture of several runs
"""
