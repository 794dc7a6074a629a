"""The paper's experiments, by one command. Read in this order:

    rows.py        what is trained: a row of a table is a name and flags
    scales.py      how large, how long, on which tasks
    plan.py        study and scale to the commands that will run
    run.py         run them, several at once; killed and started again, it goes on
    record.py      what a finished row leaves: curves, FLOPs, time, memory, versions
    results.py     records and predictions to the rows of the tables
    tables.py      the tables: Markdown, CSV, LaTeX
    curves.py      the pictures
    page.py        all of it in one HTML file (page.html is its template)
"""
