"""Entropies on disk, for every token of a training set.

fingerprint   what decides the entropies of a static teacher: another answer is another folder
store         a folder of parts, memory-mapped, each with its digest
building      the missing parts, computed by everyone who is there
self_store    a model's own entropies, kept for the epochs in which they are not computed
"""
