"""What every room may use, and what knows nothing of masks or models: errors, files, locks, processes, digests."""
