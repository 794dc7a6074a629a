"""Text in one line."""


def one_line(text: str) -> str:
    """Every run of white space becomes one blank: SentencePiece keeps U+0085 in pieces, and fairseq splits there."""
    return " ".join(text.split())
