"""Entropies on disk, for every token of a training set.

fingerprint   everything that a static teacher's entropies depend on; its digest names the folder
store         a folder of parts, memory-mapped, each with its digest
building      computes the missing parts, shared among all processes that need them
attaching     entropies become part of the batches
self_store    a model's own entropies, kept for the epochs in which they are not computed
"""
