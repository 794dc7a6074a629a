"""Text on one line."""


def one_line(text: str) -> str:
    """Every run of white space becomes one space: SentencePiece keeps U+0085 in tokens, and fairseq splits there."""
    return " ".join(text.split())
