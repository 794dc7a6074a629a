"""Flags of scores that learn."""

OPTIONS = {"accuracy": ["--accuracy-window", "3"], "predicted-loss": []}
LEARNED = list(OPTIONS)


def learned_flags(score, *more):
    """Flags of a training that masks where `score` is high, with small windows for short runs."""
    return ["--mask-strategy", "high", "--mask-score", score, *OPTIONS[score], *more]
