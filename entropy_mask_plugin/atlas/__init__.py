"""The mask atlas: what a policy masks on held-out text, as one page, pictures and tables.

views         a policy at each of its checkpoints, see the package `inspection`
counts        overlaps, fractions and ranks: numpy alone
groups        token types and positions by frequency, form and place
word_classes  nouns, verbs, …, where a tagger is installed
summary       all numbers of the atlas
pictures      the numbers as PNG
page          the numbers and the passages as one HTML file
build         from checkpoints to the files
"""
