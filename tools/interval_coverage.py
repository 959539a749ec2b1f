"""Write docs/intervals.md: the coverage of confidence intervals for grouped examples, by simulation.

    python tools/interval_coverage.py

Groups of five examples are drawn repeatedly from a population whose metric is known. The examples of a group share
their class and their difficulty.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics, probabilities
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
CLASSES, MEMBERS, TRIALS, POPULATION = 4, 5, 1000, 40_000
STRENGTH, SPREAD = 1.5, 1.5
"""Mean and standard deviation, over groups, of the margin of the correct class's logit."""
GROUPS = (20, 40, 80)
METRICS = ("accuracy", "f1_macro", "log_loss")
HEADER = """\
# Confidence intervals for grouped examples

If `data.split.group` is set, the 95 % bootstrap intervals of `run`, `evaluate`, `compare`, the slices and the report
are computed by resampling whole groups (cluster bootstrap, with BCa or percentile intervals
[as for single examples](../README.md#evaluation), widened for few groups by the ratio of the t and the normal
quantile). Each row is a simulation with {trials:,} datasets: {classes} classes, and groups of {members}
examples that share their class and their difficulty (the mean margin of the correct class's logit). *Coverage* is the
fraction of the datasets whose interval contains the true metric, with its own 95 % interval; *width* is the mean width
of the intervals. Intervals that ignore the groups, by resampling single examples, are much too narrow.
`python tools/interval_coverage.py` generates this page (fixed seed, {seconds:.0f} s).

| groups | metric | coverage, by groups | width, by groups | coverage, by examples | width, by examples |
|---:|---|---:|---:|---:|---:|
"""


def main() -> None:
    """Simulate, and write the page."""
    began = time.perf_counter()
    truth = compute_metrics(METRICS, draw(np.random.default_rng(10**6), POPULATION))
    rows = [row for groups in GROUPS for row in simulate(groups, truth)]
    header = HEADER.format(
        trials=TRIALS, members=MEMBERS, classes=CLASSES, seconds=time.perf_counter() - began
    )
    (ROOT / "docs" / "intervals.md").write_text(header + "\n".join(rows) + "\n", encoding="utf-8")


def draw(chance: np.random.Generator, groups: int) -> ScoredExamples:
    """Draw labels, scores and groups."""
    rows = np.repeat(np.arange(groups), MEMBERS)
    labels = chance.integers(0, CLASSES, groups)[rows]
    strength = chance.normal(STRENGTH, SPREAD, groups)[rows]
    logits = chance.normal(size=(len(rows), CLASSES)) + strength[:, None] * np.eye(CLASSES)[labels]
    indices = group_indices([str(row) for row in rows])
    return ScoredExamples(labels, probabilities(logits, "single_label"), "single_label", groups=indices)


def simulate(groups: int, truth: dict[str, float]) -> list[str]:
    """Return a row for each metric."""
    held = {(name, grouped): 0 for name in METRICS for grouped in (True, False)}
    widths = dict.fromkeys(held, 0.0)
    for seed in range(TRIALS):
        examples = draw(np.random.default_rng(seed), groups)
        for grouped in (True, False):
            found = intervals(METRICS, examples if grouped else replace(examples, groups=None), seed=seed)
            for name, ends in found.items():
                low, high = ends or (np.nan, np.nan)
                held[name, grouped] += bool(low <= truth[name] <= high)
                widths[name, grouped] += high - low
    return [
        f"| {groups} | `{name}` | "
        + " | ".join(
            f"{_coverage(held[name, grouped])} | {widths[name, grouped] / TRIALS:.3f}"
            for grouped in (True, False)
        )
        + " |"
        for name in METRICS
    ]


def _coverage(held: int) -> str:
    exact = binomtest(held, TRIALS).proportion_ci(0.95)
    return f"{held / TRIALS:.1%} ({exact.low:.1%} to {exact.high:.1%})".replace("%", " %")


if __name__ == "__main__":
    main()
