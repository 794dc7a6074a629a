"""The mask atlas: what a policy masks on held-out text, as one page, pictures and tables.

checkpoints   which checkpoints of a run, and how much of the run each has behind it
restoring     a checkpoint as its run had it before the next update: task, model, average, source
choices       the scores, masks and predictions on the blocks of a text
counts        overlaps, shares and ranks: numpy alone
groups        token types and positions by frequency, form and place
word_classes  nouns, verbs, …, where a tagger is installed
summary       all numbers of the atlas
pictures      the numbers as PNG
page          the numbers and the passages as one HTML file
build         from checkpoints to the files
"""
