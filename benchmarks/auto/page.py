"""The page on automatic searches: ``docs/auto.md``."""

import json
from collections.abc import Callable, Sequence
from statistics import mean

import numpy as np
from scipy.stats import kendalltau

from benchmarks.auto.measure import (
    AUTO,
    AUTOGLUON,
    CHOOSE,
    FEATURES,
    FINISHED,
    GRID,
    LIMITS,
    RECIPE,
    STOCK,
    Row,
    grid_settings,
)
from benchmarks.auto.sets import SETS
from benchmarks.kit.compare import compare, signed
from benchmarks.kit.results import Effect, unpack

__all__ = ["render"]

HEAD = """# Automatic search: results

`hf-finetune auto` was compared with its competitors on real datasets. `python -m benchmarks.auto measure` builds them
from their packages (needs `apt-get`), runs what has no result yet, and writes this page;
[benchmarks/results/auto.json](../benchmarks/results/auto.json) has the raw data. The seed of a run draws the test split
of each class, and all other randomness. All runs of a seed have the same test split, which is read once, at the end.

Each run has one core of its own and an empty cache; two run at a time. Importing libraries is not counted.

- *auto*: `hf-finetune auto` with a time limit, quality `good`; it chooses the checkpoint too.
- *frozen features*: a linear classifier on the frozen features of the default checkpoint (EfficientNet-lite0 or
  all-MiniLM-L6-v2), fitted to all examples outside the test split. It has no limit.
- *shipped recipe*: `image/vit-folder` or `text/reviews-csv` with the default checkpoint and `limit: {time}`.
- *stock script*: two Trainers, for the head (5 epochs) and for all layers (10 epochs, or as many as fit into the time);
  the default checkpoint, 15 % as validation split, the best epoch is kept. Its learning rates were chosen on the dishes
  and the film reviews.
"""
PEER = """\
- *AutoGluon*: `MultiModalPredictor` of [AutoGluon](https://auto.gluon.ai) in an environment of its own
  ([requirements](../benchmarks/requirements-autogluon.txt)), with the default checkpoint and the time limit, which ends
  its training. It has the settings of its preset `medium_quality`, but the batch size of the stock script (32 instead
  of 128, with which it takes too few steps), mean pooling for texts, as the checkpoint was trained, and no synonyms as
  augmentation, for which it downloads WordNet. It does not adapt its 20 epochs to the limit.
"""
ORACLE = """\
- *oracle*: the best of a grid of recipes **by their test accuracy**, which no honest choice can reach: every
  checkpoint with frozen features, and the shipped recipe with it, for the default layers or all layers, each with three
  learning rates. Of all-mpnet-base-v2, the grid has only the frozen features, because training its layers takes more
  than an hour on one core. The grid has no time limit. It is a reference, not a competitor.
"""
TABLE = """Mean test accuracy over the seeds. In parentheses: the 95 % interval of the difference *auto* minus the
competitor. *seconds*: the mean duration of *auto*.
"""
CHOICE = """How well scores of frozen features rank the checkpoints, compared with the grid: the best test accuracy of
each checkpoint that is fine-tuned, over the layers and learning rates. *choose* is the score of `hf-finetune choose`,
the cross-validated accuracy of a linear classifier. Alternatives: *LogME* (You et al. 2021), the *H-score* (Bao et al.
2019, with a shrunk covariance), and, both cross-validated, 5 *nearest neighbors* by cosine and the *nearest class
mean*.

Kendall's rank correlation (tau-b), mean over the seeds: 1 is the same order, 0 no relation. *lost* is the test accuracy
that is lost by fine-tuning the checkpoint with the highest score instead of the best one.
"""


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows.

    Datasets, contenders and scores without rows are left out; so are time limits and the grid until all datasets have
    them.
    """
    rows = _complete(rows)
    optional = [text for text, contender in ((PEER, AUTOGLUON), (ORACLE, GRID)) if _has(rows, contender)]
    parts = ["".join([HEAD, *optional]), _sets(rows)]
    for limit in LIMITS:
        if (
            {row.name for row in rows if (row.contender, row.limit) == (AUTO, limit)}
            == set(_names(rows))
            != set()
        ):
            parts += [f"## {limit // 60} minute{'s' if limit > 60 else ''}\n", TABLE, _table(rows, limit)]
    parts += ["## Expected and test accuracy\n", _coverage(rows)]
    if _has(rows, CHOOSE):
        parts += ["## Choice of the checkpoint\n", CHOICE, _ranks(rows)]
    return "\n".join(parts)


def _complete(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without limits that not all datasets have, and without grids unless all datasets have one."""
    names = set(_names(rows))
    limits = {
        limit
        for limit in LIMITS
        if {row.name for row in rows if (row.contender, row.limit) == (AUTO, limit)} == names
    }
    measured: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if row.contender == GRID:
            measured.setdefault((row.name, row.seed), set()).add(row.setting)
    grids = {key for key, settings in measured.items() if settings == set(grid_settings(SETS[key[0]]))}
    has_grids = {name for name, _ in grids} >= names
    return [
        row
        for row in rows
        if (row.contender != AUTO or row.limit in limits)
        and (row.contender not in (GRID, CHOOSE) or (has_grids and (row.name, row.seed) in grids))
    ]


def _has(rows: Sequence[Row], contender: str) -> bool:
    return any(row.contender == contender for row in rows)


def _sets(rows: Sequence[Row]) -> str:
    lines = ["| dataset | examples | test examples | seeds |", "|---|---|---:|---:|"]
    for name in _names(rows):
        of = [row for row in rows if row.name == name]
        seeds = {row.seed for row in of if row.contender == AUTO}
        lines.append(f"| *{name}* | {SETS[name].about} | {of[0].examples} | {len(seeds)} |")
    return "\n".join(lines) + "\n"


def _names(rows: Sequence[Row]) -> list[str]:
    return [name for name in SETS if any((row.name, row.contender) == (name, AUTO) for row in rows)]


def _table(rows: Sequence[Row], limit: int) -> str:
    """Return the mean test accuracies of all contenders within a limit, and the differences of ``auto`` from them."""
    others: dict[str, Callable[[str, int], Row | None]] = {
        FEATURES: lambda name, seed: _row(rows, name, FEATURES, seed, 0),
        RECIPE: lambda name, seed: _row(rows, name, RECIPE, seed, limit),
        STOCK: lambda name, seed: _row(rows, name, STOCK, seed, limit),
        **(
            {AUTOGLUON: lambda name, seed: _row(rows, name, AUTOGLUON, seed, limit)}
            if _has(rows, AUTOGLUON)
            else {}
        ),
        **({"oracle": lambda name, seed: _oracle(rows, name, seed)} if _has(rows, GRID) else {}),
    }
    titles = " | ".join(others)
    lines = [f"| dataset (seeds) | auto | {titles} | seconds |", f"|---|{'---:|' * (len(others) + 2)}"]
    differences: dict[str, list[float]] = {other: [] for other in others}
    for name in _names(rows):
        found = [row for row in rows if (row.name, row.contender, row.limit) == (name, AUTO, limit)]
        if not found:
            continue
        cells = [f"| *{name}* ({len(found)})", f"{mean(map(_accuracy, found)):.3f}"]
        for other, row_of in others.items():
            pairs = [(row, against) for row in found if (against := row_of(name, row.seed))]
            if len(pairs) < len(found):  # means over different seeds could not be compared
                pairs = []
            cells.append(_cell(pairs))
            if pairs:
                differences[other].append(mean(_accuracy(row) - _accuracy(against) for row, against in pairs))
        lines.append(" | ".join([*cells, f"{mean(row.seconds for row in found):.0f} |"]))
    means = [signed(mean(values)) if values else "" for values in differences.values()]
    lines.append(" | ".join(["| mean difference of auto", "", *means, " |"]))
    return "\n".join(lines) + "\n"


def _cell(pairs: Sequence[tuple[Row, Row]]) -> str:
    """Return the mean accuracy of a competitor, and the 95 % interval of the difference of ``auto`` from it."""
    if not pairs:
        return ""
    found = compare([_effect(row) for row, _ in pairs], [_effect(against) for _, against in pairs])
    low, high = found.interval
    return f"{mean(_accuracy(against) for _, against in pairs):.3f} ({signed(low)} to {signed(high)})"


def _row(rows: Sequence[Row], name: str, contender: str, seed: int, limit: int) -> Row | None:
    """Return the row of a run: with the limit, or with a shorter one before which it ended."""
    of = [row for row in rows if (row.name, row.contender, row.seed) == (name, contender, seed)]
    fitting = [row for row in of if row.limit == limit or row.seconds < FINISHED * row.limit <= limit]
    return max(fitting, key=lambda row: row.limit, default=None)


def _oracle(rows: Sequence[Row], name: str, seed: int) -> Row | None:
    of = [row for row in rows if (row.name, row.contender, row.seed) == (name, GRID, seed)]
    return max(of, key=_accuracy, default=None)


def _accuracy(row: Row) -> float:
    return float(unpack(row.right, row.examples).mean())


def _effect(row: Row) -> Effect:
    return Effect(row.name, row.contender, row.seed, "", _accuracy(row), row.right, (), row.examples)


def _coverage(rows: Sequence[Row]) -> str:
    """Return how often the interval of the expected accuracy contains the test accuracy."""
    lines = [
        "How often the 95 % interval that was printed before the test split was read contains the test accuracy, and",
        "the mean of expected minus test accuracy.",
        "",
        "| limit | runs | in the interval | expected minus test |",
        "|---|---:|---:|---:|",
    ]
    for limit in LIMITS:
        found = [
            (_accuracy(row), row.expected, row.low, row.high)
            for row in rows
            if row.contender == AUTO and row.limit == limit
        ]
        printed = [each for each in found if None not in each]
        if printed:
            accuracies, expected, low, high = np.asarray(printed, dtype=float).T
            covered = float(((low <= accuracies) & (accuracies <= high)).mean())
            bias = float((expected - accuracies).mean())
            lines.append(f"| {limit} s | {len(printed)} | {covered:.0%} | {signed(bias)} |")
    return "\n".join(lines) + "\n"


def _ranks(rows: Sequence[Row]) -> str:
    """Return the rank correlation of each score of the checkpoints with their fine-tuned test accuracies."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        tuned = _tuned(rows, row.name, row.seed)
        if row.contender != CHOOSE or len(tuned) < 2:
            continue
        by_model = json.loads(row.details)
        models = [model for model in by_model if model in tuned]
        accuracies = [tuned[model] for model in models]
        for score in next(iter(by_model.values())):
            scores = [by_model[model][score] for model in models]
            tau = float(np.nan_to_num(kendalltau(scores, accuracies).statistic))
            lost = max(accuracies) - accuracies[int(np.argmax(scores))]
            found.setdefault(score, {}).setdefault(row.name, []).append((tau, lost))
    names = [name for name in SETS if any(name in by_set for by_set in found.values())]
    titles = " | ".join(f"*{name}*" for name in names)
    lines = [f"| score | {titles} | mean | lost |", f"|---|{'---:|' * (len(names) + 2)}"]
    for score, by_set in found.items():
        taus = [mean(tau for tau, _ in by_set[name]) for name in names]
        lost = mean(each for pairs in by_set.values() for _, each in pairs)
        lines.append(f"| {score} | {' | '.join(map(signed, [*taus, mean(taus)]))} | {lost:.3f} |")
    return "\n".join(lines) + "\n"


def _tuned(rows: Sequence[Row], name: str, seed: int) -> dict[str, float]:
    """Return the best fine-tuned test accuracy of each checkpoint in the grid."""
    best: dict[str, float] = {}
    for row in rows:
        if (row.name, row.contender, row.seed) == (name, GRID, seed) and not row.setting.endswith("features"):
            model = row.setting.split()[0]
            best[model] = max(best.get(model, 0.0), _accuracy(row))
    return best
