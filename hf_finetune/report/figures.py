"""Figures of a report as SVG, in a few colors that a page replaces by CSS variables."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hf_finetune.errors import counted

__all__ = [
    "COLORS",
    "Picture",
    "class_balance",
    "confused_classes",
    "confusion_matrix",
    "learning_curves",
    "reliability_curve",
]

INK = "#1f2430"
MUTED = "#5b6270"
GRID = "#d4d8df"
FIRST = "#1f5fbf"
SECOND = "#b4540a"
PAPER = "#ffffff"
COLORS = {
    "--ink": INK,
    "--muted": MUTED,
    "--grid": GRID,
    "--first": FIRST,
    "--second": SECOND,
    "--paper": PAPER,
}
"""Colors of the figures, by the CSS variables that replace them in a page."""

MAX_LABELED_CLASSES = 30
"""Maximum number of classes for a confusion matrix with class names and counts."""
MAX_MATRIX_CLASSES = 500
"""Maximum number of classes for a confusion matrix of all classes."""
MAX_FULL_SIZE_CELLS = 100
"""Maximum number of classes at which a cell is visible at its own size; with more, cells are enlarged."""
MAX_CONFUSED_CLASSES = 15
"""Maximum number of classes in the matrix of the most confused classes."""
MIN_OPACITY = 0.08
MAX_OPACITY = 0.9
MAX_OPACITY_WITH_COUNTS = 0.5
"""Opacity of the largest fraction in cells with counts, so that the counts are readable."""
MAX_NAMED_STAGES = 4
"""Maximum number of stages that are labeled by name in the learning curves; if there are more, by number."""
WIDTH = 4.6  # inches: fills a page, and is still readable on a phone
MAX_BARS = 40
"""Maximum number of classes in the figure of the class balance."""
MAX_NAME_LENGTH = 24
"""Maximum number of characters of a class name."""
LETTER_WIDTH = 0.08
"""Width of a wide letter, in inches."""
EMA_DECAY = 0.9
"""Decay factor of the exponential moving average of the training loss."""
STYLE: dict[Any, Any] = {  # Any, because matplotlib types its keys as literals
    "svg.fonttype": "none",
    "svg.hashsalt": "hf-finetune",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Picture:
    """Figure of a report.

    Attributes:
        name: File name without extension.
        title: Title above the figure.
        caption: Description of the figure and how to read it.
        svg: SVG source.
    """

    name: str
    title: str
    caption: str
    svg: str


def learning_curves(
    stages: Sequence[Mapping[str, Any]],
    logs: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]],
    metric: str,
) -> Picture | None:
    """Draw the training loss and the validation metric over the optimizer steps of all stages.

    Args:
        stages: ``name`` and ``steps`` of each stage.
        logs: Logged steps (``step``, ``loss``) and evaluations (``step``, ``eval_METRIC``) of each stage.
        metric: Name of the validation metric.

    Returns:
        The figure; None if no step was logged.
    """
    if not any(steps for steps, _ in logs):
        return None
    has_validation = any(f"eval_{metric}" in entry for _, records in logs for entry in records)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0 if has_validation else 2.4), layout="constrained")
        panels = figure.subplots(2 if has_validation else 1, 1, sharex=True, squeeze=False)[:, 0]
        start, final_value = 0, None
        # by first step, which a stage shares with the next if it takes no steps
        titles: dict[int, list[str]] = {}
        for number, (stage, (steps, evaluations)) in enumerate(zip(stages, logs, strict=True), 1):
            positions = [start + entry["step"] for entry in steps]
            losses = [entry["loss"] for entry in steps]
            panels[0].plot(positions, losses, color=FIRST, alpha=0.25, linewidth=0.8)
            panels[0].plot(positions, _smooth(losses), color=FIRST, linewidth=1.6)
            if has_validation:
                measurements = [entry for entry in evaluations if f"eval_{metric}" in entry]
                positions = [start + entry["step"] for entry in measurements]
                values = [entry[f"eval_{metric}"] for entry in measurements]
                panels[1].plot(positions, values, "o-", color=SECOND, markersize=3.5)
                final_value = values[-1] if values else final_value
            for axes in panels:
                axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=":")
            title = _short(stage["name"]) if len(stages) <= MAX_NAMED_STAGES else str(number)
            titles.setdefault(start, []).append(title)
            start += stage["steps"]
        for position, names in titles.items():
            panels[0].annotate(
                ", ".join(names),
                (position, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 2),
                textcoords="offset points",
                color=MUTED,
            )
        panels[0].set_ylabel("training loss")
        if has_validation:
            panels[1].set_ylabel(f"validation {metric}")
        panels[-1].set_xlabel("optimizer step")
        ended = "" if final_value is None else f"; the validation {metric} ends at {final_value:.3f}"
        count = counted(sum(stage["steps"] > 0 for stage in stages), "stage")
        caption = (
            f"Training loss over {start:,} steps of {count}, per logged step (thin) and smoothed (thick){ended}. "
            "Dotted lines mark the start of a stage."
        )
        return Picture("learning-curves", "Learning curves", caption, _svg(figure))


def reliability_curve(bins: Sequence[Mapping[str, Any]], ece: float) -> Picture:
    """Draw a reliability diagram: accuracy and number of predictions in each confidence bin.

    Args:
        bins: ``low``, ``high``, ``count``, mean ``confidence`` and accuracy (``right``) of each bin.
        ece: Expected calibration error.

    Returns:
        The figure.
    """
    filled = [bucket for bucket in bins if bucket["count"]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle="--")
        for bucket in filled:
            bottom, top = sorted((bucket["confidence"], bucket["right"]))
            upper.plot([bucket["confidence"]] * 2, [bottom, top], color=SECOND, linewidth=2, alpha=0.5)
        positions = [bucket["confidence"] for bucket in filled]
        upper.plot(positions, [bucket["right"] for bucket in filled], "o-", color=FIRST, markersize=4)
        upper.set(ylabel="fraction correct", xlim=(0, 1), ylim=(0, 1.02))
        lower.bar(
            [(bucket["low"] + bucket["high"]) / 2 for bucket in bins],
            [bucket["count"] for bucket in bins],
            width=[0.9 * (bucket["high"] - bucket["low"]) for bucket in bins],
            color=FIRST,
        )
        lower.set(ylabel="predictions", xlabel="confidence")
        empty = f" ({len(bins) - len(filled)} empty)" if len(filled) < len(bins) else ""
        caption = (
            f"Fraction of correct predictions by confidence in {len(bins)} bins of equal width{empty}; the expected "
            f"calibration error (ECE) is {ece:.3f}. The dashed line is perfect calibration; below it the model is "
            "overconfident. The bars count the predictions."
        )
        return Picture("reliability", "Reliability", caption, _svg(figure))


def confusion_matrix(labels: np.ndarray, decisions: np.ndarray, names: Sequence[str]) -> Picture | None:
    """Draw the confusion matrix of all classes, with class names and counts for up to 30 classes.

    Args:
        labels: True class indices `[examples]`.
        decisions: Predicted class indices `[examples]`.
        names: Class names, by class index.

    Returns:
        The figure; None for more than 500 classes.
    """
    if len(names) > MAX_MATRIX_CLASSES:
        return None
    counts = _confusion_counts(labels, decisions, len(names))
    right = np.trace(counts) / max(1, counts.sum())
    caption = (
        f"{right:.1%} of {counts.sum():,} examples are correct (blue, on the diagonal); errors are orange. "
        "Rows are labels, columns are predictions; the color intensity is the fraction of the row."
    )
    if len(names) > MAX_LABELED_CLASSES:
        caption += f" Class names are omitted for more than {MAX_LABELED_CLASSES} classes."
    figure = _draw_matrix(
        counts, _row_fractions(counts), names if len(names) <= MAX_LABELED_CLASSES else None
    )
    return Picture("confusion-matrix", f"Confusion matrix of {len(names):,} classes", caption, figure)


def confused_classes(labels: np.ndarray, decisions: np.ndarray, names: Sequence[str]) -> Picture | None:
    """Draw the confusion matrix of the most confused classes, if the full matrix is too large for class names.

    Args:
        labels: True class indices `[examples]`.
        decisions: Predicted class indices `[examples]`.
        names: Class names, by class index.

    Returns:
        The figure, with class names and counts; None if the full matrix has class names or no prediction is wrong.
    """
    wrong = labels != decisions
    if len(names) <= MAX_LABELED_CLASSES or not wrong.any():
        return None
    chosen = _most_confused(labels[wrong], decisions[wrong])
    positions = np.full(len(names), len(chosen))
    positions[chosen] = np.arange(len(chosen))
    # the last row and column are all other classes
    counts = _confusion_counts(positions[labels], positions[decisions], len(chosen) + 1)
    fractions, counts = _row_fractions(counts)[:-1, :-1], counts[:-1, :-1]
    errors = counts.sum() - np.trace(counts)
    figure = _draw_matrix(counts, fractions, [names[index] for index in chosen])
    among = f"{errors:,} of the {wrong.sum():,} errors are among these classes."
    caption = f"{among} Rows are labels, columns are predictions."
    return Picture("confused-classes", f"The {len(chosen)} most confused classes", caption, figure)


def _most_confused(labels: np.ndarray, decisions: np.ndarray) -> list[int]:
    """Return the classes of the pairs that are most often confused, in either direction, added pair by pair."""
    together = np.sort(np.stack([labels, decisions], axis=1), axis=1)
    pairs, counts = np.unique(together, axis=0, return_counts=True)
    chosen: set[int] = set()
    for pair in pairs[np.argsort(-counts, kind="stable")].tolist():
        if len(chosen.union(pair)) <= MAX_CONFUSED_CLASSES:
            chosen.update(pair)
        if len(chosen) == MAX_CONFUSED_CLASSES:
            break
    return sorted(chosen)


def _confusion_counts(labels: np.ndarray, decisions: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix `[classes, classes]`: example counts by label (row) and prediction (column)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, decisions), 1)
    return counts


def _row_fractions(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _draw_matrix(counts: np.ndarray, fractions: np.ndarray, names: Sequence[str] | None) -> str:
    """Draw a confusion matrix as SVG; with class names, each cell shows its count too."""
    classes = len(counts)
    short = [_short(name) for name in names or ()]
    cell = max(0.34, min(0.75, 3 / classes))  # inches
    size = 1.5 + cell * classes if names else 5.2
    strongest = MAX_OPACITY_WITH_COUNTS if names else MAX_OPACITY
    side = 1.0 if names else max(1.0, classes / MAX_FULL_SIZE_CELLS)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.subplots()
        for row, column in np.argwhere(counts).tolist():
            alpha = MIN_OPACITY + (strongest - MIN_OPACITY) * fractions[row, column]
            if not names:
                alpha = max(alpha, 3 * MIN_OPACITY)  # else a cell with few examples would be invisible
            color = FIRST if row == column else SECOND
            corner = (column - side / 2, row - side / 2)
            axes.add_patch(Rectangle(corner, side, side, facecolor=color, alpha=alpha, lw=0))
            if names:
                axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        if names:
            level = max(map(len, short)) * LETTER_WIDTH <= cell
            axes.set_xticks(range(classes), short, rotation=0 if level else 90)
            axes.set_yticks(range(classes), short)
            axes.tick_params(length=0)
            axes.hlines(np.arange(classes - 1) + 0.5, -0.5, classes - 0.5, color=GRID, linewidth=0.4)
            axes.vlines(np.arange(classes - 1) + 0.5, -0.5, classes - 0.5, color=GRID, linewidth=0.4)
        else:
            axes.set(xticks=[], yticks=[])
        axes.set(xlabel="prediction", ylabel="label")
        return _svg(figure)


def class_balance(counts: Mapping[str, int]) -> Picture | None:
    """Draw the number of training examples of each class; of more than 40 classes, the 20 largest and 20 smallest.

    Args:
        counts: Number of training examples by class.

    Returns:
        The figure; None if there are no classes.
    """
    if not counts:
        return None
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    bars = ranked if len(ranked) <= MAX_BARS else [*ranked[: MAX_BARS // 2], *ranked[-MAX_BARS // 2 :]]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.19 * len(bars)), layout="constrained")
        axes: Axes = figure.subplots()
        axes.barh(range(len(bars)), [count for _, count in bars], color=FIRST)
        axes.set_yticks(range(len(bars)), [_short(name) for name, _ in bars])
        axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel="training examples")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.tick_params(axis="y", length=0)
        half = MAX_BARS // 2
        selection = f" (shown: the {half} largest and the {half} smallest)" if len(bars) < len(ranked) else ""
        counts_range = f"{ranked[-1][1]:,} to {ranked[0][1]:,}"
        caption = f"Training examples of each of {len(ranked)} classes{selection}: {counts_range}."
        return Picture("class-balance", "Training examples by class", caption, _svg(figure))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser renders the text, with fonts that have the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average of the values, with bias correction."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = EMA_DECAY * total + value, EMA_DECAY * weight + 1
        smoothed.append(total / weight)
    return smoothed


def _short(name: str) -> str:
    """Return a name truncated for a figure, with dollar signs escaped, as they would start a formula."""
    plain = re.sub(r"\s+", " ", name)
    plain = plain if len(plain) <= MAX_NAME_LENGTH else plain[: MAX_NAME_LENGTH - 3] + "..."
    return plain.replace("$", r"\$")
