"""Reading checkpoints from untrusted sources without running code in them, and identifying their vocabulary."""
