"""Who scores the tokens, how exactly, and from where.

schedule    which source in which epoch
sources/    the teacher, the model itself
scorer      what a model says of the clean tokens of a batch
precision   autocast
cache/      entropies on disk
"""
