"""Helpers that any other package here may import: errors, files, locks, processes, digests. Nothing about models."""
