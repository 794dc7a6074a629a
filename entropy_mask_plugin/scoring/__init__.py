"""Who scores the tokens, how exactly, and from where."""
