"""The paper's experiments, by one command. Read in this order:

    conditions.py  what is trained: a row of a table is a name and flags
    scales.py      how large, how long, on which tasks
    options.py     the flags of a study, checked
    plan.py        options to the commands that will run
    run.py         run them, several at once; a killed study resumes
    record.py      record.json of a finished trial: curves, FLOPs, time, memory, versions
    results.py     records and predictions to the rows of the tables
    tables.py      the tables, for people and as values
    curves.py      the pictures
    page.py        all of it in one HTML file (page.html is its template)
    report.py      writes them
"""
