#!/usr/bin/env python3
"""Draw docs/batch_hook.png, the picture in README:   python docs/draw_batch_hook.py

The bars are an illustration, not a measurement.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TOKENS = ["<s>", "the", "treaty", "was", "signed", "in", "Vienna", "</s>"]
ENTROPIES = [None, 0.15, 0.72, 0.22, 0.55, 0.30, 0.95, None]  # heights of the bars; <s> and </s> are never masked
MASKED = [2, 6]  # the k = 2 largest
INK, GREY, PALE, BLUE, ORANGE = "#1f2933", "#6b7785", "#eef1f5", "#2f6db5", "#d9641e"

LEFT, COLUMN = 4.75, 0.98  # where the first token begins, and the distance of two tokens
CLEAN, SOURCE, BARS, INPUT, STUDENT, LOSS = 6.05, 5.25, 3.6, 2.65, 1.5, 0.6  # heights of the rows
BAR_HEIGHT = 1.2


def center(column):
    return LEFT + COLUMN * (column + 0.5)


def box(ax, x, y, width, height, text, face, edge, color=INK, **font):
    patch = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08",
                           facecolor=face, edgecolor=edge, linewidth=1.1)
    ax.add_patch(patch)
    ax.text(x, y - 0.01, text, ha="center", va="center", color=color, **{"fontsize": 10.5, **font})


def arrow(ax, x, top, bottom, color=GREY, width=1.1):
    ax.add_patch(FancyArrowPatch((x, top), (x, bottom), arrowstyle="-|>", mutation_scale=10, color=color,
                                 linewidth=width, shrinkA=0, shrinkB=0))


def step(ax, y, number, code, *lines):
    """The left column: what the hook calls, and what that means."""
    if number:
        ax.text(0.2, y, number, ha="center", va="center", color="white", fontsize=10, fontweight="bold",
                bbox={"boxstyle": "circle,pad=0.25", "facecolor": INK, "edgecolor": "none"})
    ax.text(0.5, y, code, ha="left", va="center", color=INK, fontsize=10.5,
            family="monospace" if number else None, fontweight="bold")
    for n, line in enumerate(lines, 1):
        ax.text(0.5, y - 0.27 * n, line, ha="left", va="center", color=GREY, fontsize=9.5)


def draw(ax):
    middle, width = center((len(TOKENS) - 1) / 2), COLUMN * len(TOKENS)
    step(ax, CLEAN, "", "clean batch", "unmasked tokens from the data loader")
    step(ax, SOURCE, "1", "scores = source(…)", "the teacher, or the model itself,",
         "reads the clean tokens (no gradient);", "entropy of its prediction at every position")
    step(ax, INPUT + 0.3, "2", "masked = masker(…)", "the strategy ranks the tokens (here: high),",
         "exactly k of them are taken (here: k = 2)")
    step(ax, STUDENT + 0.1, "3", "train_step(masked)", "forward and backward on the masked batch,",
         "loss at the selected positions only", "(optionally with distillation)")

    box(ax, middle, SOURCE, width - 0.12, 0.46, "source: teacher or self", PALE, GREY, INK, fontweight="bold")
    box(ax, middle, STUDENT, width - 0.12, 0.46, "model being trained", "#e4edf7", BLUE, BLUE, fontweight="bold")
    arrow(ax, middle, CLEAN - 0.23, SOURCE + 0.25)
    arrow(ax, middle, INPUT - 0.23, STUDENT + 0.25)
    for column, (token, entropy) in enumerate(zip(TOKENS, ENTROPIES, strict=True)):
        draw_column(ax, center(column), token, entropy, column in MASKED)
    ends = [LEFT + COLUMN, LEFT + width - COLUMN]
    ax.plot(ends, [BARS, BARS], color=GREY, linewidth=0.8)
    cut = BARS + BAR_HEIGHT * 0.635
    ax.plot(ends, [cut, cut], color=ORANGE, linewidth=1.1, linestyle=(0, (4, 3)))
    ax.text(ends[1] + 0.06, cut, "cut", ha="left", va="center", fontsize=9, color=ORANGE)


def draw_column(ax, x, token, entropy, is_masked):
    """One token on its way from the clean batch to the loss."""
    ink = INK if entropy else GREY
    box(ax, x, CLEAN, 0.86, 0.42, token, "white", GREY, ink)
    box(ax, x, INPUT, 0.86, 0.42, "<mask>" if is_masked else token, ORANGE if is_masked else "white",
        ORANGE if is_masked else GREY, "white" if is_masked else ink, fontweight="bold" if is_masked else "normal",
        fontsize=9.2 if is_masked else 10.5)
    arrow(ax, x, BARS - 0.1, INPUT + 0.25, ORANGE if is_masked else "#c5ccd5", 1.6 if is_masked else 1.0)
    if entropy:
        ax.bar(x, BAR_HEIGHT * entropy, width=0.5, bottom=BARS, color=ORANGE if is_masked else "#b8c6d8")
    else:
        ax.text(x, BARS + 0.16, "not\nmaskable", ha="center", va="center", fontsize=8, color=GREY)
    if is_masked:
        arrow(ax, x, STUDENT - 0.25, LOSS + 0.24, ORANGE, 1.6)
        box(ax, x, LOSS, 1.5, 0.42, f"−ln P({token})", "white", ORANGE, ORANGE, fontsize=10)


def main():
    figure, ax = plt.subplots(figsize=(9.4, 4.9))
    draw(ax)
    ax.set(xlim=(0, LEFT + COLUMN * len(TOKENS) + 0.1), ylim=(0.3, 6.35))
    ax.axis("off")
    figure.subplots_adjust(0.012, 0.012, 0.988, 0.988)
    figure.savefig(Path(__file__).with_name("batch_hook.png"), dpi=150, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
