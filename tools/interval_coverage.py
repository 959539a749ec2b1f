"""Write docs/intervals.md: how often intervals of grouped examples hold the truth, by simulation.

    python tools/interval_coverage.py

Groups of five examples are drawn again and again from a population whose metric is known; each group is of one class
and has a difficulty of its own, so that its examples are alike.
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
"""Mean and standard deviation, over groups, of how much greater the logit of the right class is."""
GROUPS = (20, 40, 80)
METRICS = ("accuracy", "f1_macro", "log_loss")
HEADER = """\
# Intervals of grouped examples

Where `data.split.group` says that examples belong together, the 95 % intervals of `run`, `evaluate`, `compare`, of
slices and of the report resample whole groups (cluster bootstrap, BCa, expanded as t intervals are). Simulated with
{trials:,} draws for each row: groups of {members} examples of one class and of one difficulty, {classes} classes.
*Coverage* is how often the interval held the metric of the population, with its own 95 % interval; an interval that
ignores the groups is much too narrow. `python tools/interval_coverage.py` makes this page (seeded; {seconds:.0f} s).

| groups | metric | coverage, by groups | mean width | coverage, groups ignored | mean width |
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
    return f"{held / TRIALS:.1%} ({exact.low:.1%} to {exact.high:.1%})"


if __name__ == "__main__":
    main()
