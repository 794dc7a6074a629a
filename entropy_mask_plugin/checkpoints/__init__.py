"""Files that somebody else may have written: read without running what is in them, and whose vocabulary they have."""
