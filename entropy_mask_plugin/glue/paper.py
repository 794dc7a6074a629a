"""The paper's GLUE tables (dev sets, per cent, means over two seeds), for comparison. Columns: PAPER_CELLS. The
metrics are `tasks.Task.paper`, of MNLI the mismatched set. Averages are not repeated: four of the printed are wrong."""

PAPER_CELLS = ("CoLA", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "MNLI-mismatched")
PAPER_ROWS = {
    "BERT random": (69.42, 81.80, 74.98, 83.75, 52.35, 82.34, 68.25),
    "BERT high": (67.98, 78.05, 80.72, 86.15, 52.71, 85.78, 73.76),
    "BERT low": (69.42, 81.03, 79.68, 85.01, 54.51, 81.31, 72.65),
    "BERT marginal": (69.51, 79.53, 82.13, 86.38, 54.51, 83.14, 72.58),
    "BERT alternating": (68.74, 81.07, 82.92, 86.71, 53.07, 86.58, 73.99),
    "BERT mid": (69.13, 81.22, 50.54, 63.18, 52.71, 50.92, 35.22),
    "BERT high, cold": (69.13, 81.22, 49.46, 63.18, 52.71, 50.92, 35.22),
    "BERT high, init": (69.42, 81.22, 84.81, 89.04, 52.35, 86.81, 71.62),
    "BERTlet random": (69.32, 81.79, 65.20, 82.24, 53.07, 79.36, 65.51),
    "BERTlet high": (68.74, 81.01, 76.04, 84.67, 56.32, 81.54, 70.19),
    "BERTlet low": (69.03, 79.68, 65.62, 82.60, 51.62, 80.62, 69.91),
    "BERTlet marginal": (69.03, 79.94, 66.14, 82.42, 54.51, 80.39, 69.93),
    "BERTlet alternating": (68.84, 81.37, 65.95, 82.20, 53.43, 80.96, 70.26),
    "BERTlet mid": (69.13, 81.22, 60.66, 80.74, 52.71, 79.82, 59.85),
    "BERTlet high, cold": (69.13, 80.30, 60.77, 81.02, 54.51, 77.87, 62.00),
    "BERTlet high, init": (68.84, 80.39, 78.82, 85.80, 55.96, 83.72, 72.54),
}

# Scores on the dev sets of predicting one class for every example, for each class, the majority's first (MRPC: F1).
SINGLE_CLASS_SCORES = {"CoLA": (69.13, 30.87), "MRPC": (81.22, 0.0), "QNLI": (50.54, 49.46), "QQP": (63.18, 36.82),
                       "RTE": (52.71, 47.29), "SST-2": (50.92, 49.08), "MNLI-mismatched": (35.22, 32.95, 31.82)}


def is_single_class_score(cell: str, value: float) -> bool:
    """Whether a published score is, to the last digit, that of predicting one class for every example.

    Args:
        cell: one of PAPER_CELLS.
        value: per cent.
    """
    return any(abs(value - score) < 0.0151 for score in SINGLE_CLASS_SCORES[cell])
