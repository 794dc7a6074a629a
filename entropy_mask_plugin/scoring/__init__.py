"""Whose predictions score the tokens, how exactly, and whether they are computed or read.

schedule    which source in which epoch
sources/    the teacher, the model being trained, its average
scorer      the scores of a model's predictions on the clean tokens of a batch
contextual  what it costs to score tokens while they are hidden, and how the scores differ
precision   autocast
learners    scores that learn, and what checkpoints keep of them
cache/      entropies on disk
"""
