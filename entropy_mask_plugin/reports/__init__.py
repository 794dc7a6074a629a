"""What came out of a run, from the files that it leaves: a table and a picture."""
