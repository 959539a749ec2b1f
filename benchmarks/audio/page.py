"""The page on the drum sounds: ``docs/drums.md``."""

from collections.abc import Sequence
from statistics import mean

import numpy as np

from benchmarks.audio.measure import FOLDS, SETTINGS, Row
from benchmarks.kit.compare import LEVEL, RESAMPLES, signed
from benchmarks.kit.results import unpack

__all__ = ["render"]

HEAD = """# Drum sounds: results of the recipe for recordings

{examples} sounds of six kinds of drums from {kits} drum kits of the Debian package hydrogen-drumkits were classified by
Whisper base, a model for speech, with the recipe [audio/sounds-folder](../recipes/audio/sounds-folder.yaml) and inputs
of 2 seconds. The kits are divided into {folds} folds; each is the test split once, so that every sound is tested by a
model that has heard no sound of its kit. The recipe is unchanged but for what the first column says; with inputs of 1
second, the layer is chosen by cross-validation, too.

`python -m benchmarks.audio measure` takes the sounds from the package (needs `apt-get`), runs all experiments and
writes this page; [benchmarks/results/audio.json](../benchmarks/results/audio.json) has the raw data.

Accuracy on all sounds, mean over {seeds}. *difference*: from the baseline on log-mel statistics, which needs no
checkpoint, with a 95 % confidence interval (paired bootstrap over the kits, {resamples:,} samples).

| model | accuracy | difference | 95 % interval | seconds |
|---|---:|---:|---:|---:|
"""
FOOT = """
Where the interval contains 0, the model is not shown to be better than a logistic regression of simple statistics.
{seeds}

## Choices

Each baseline and model reads the beginning of a sound (`data.crop: start`). Before this was the default, all of them
read the middle of sounds that are longer than the input, without the stroke that begins them: with seed 0, the accuracy
of the log-mel statistics was then 0.716, that of the last layer 0.729, and that of the chosen layer 0.694. That the
stroke matters was found on the same sounds, with other divisions of the kits; so was the length of 1 second, the median
of the sounds; with it, the baseline reads 1 second, too. Neither was chosen on kits of its own, and there are only
12 kits: read the line of 1 second as a promising setting, not as a proof.
"""
BASELINES = {
    "largest class": "majority_right",
    "log-mel statistics": "log_mel_right",
}


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows; only seeds with all folds of a setting count."""
    rows = _whole(rows)
    first = next((setting for setting in SETTINGS if any(row.setting == setting for row in rows)), "")
    of_first = [row for row in rows if row.setting == first]
    lines = [_line(name, of_first, field) for name, field in BASELINES.items() if of_first]
    for setting in SETTINGS:
        of = [row for row in rows if row.setting == setting]
        if not of:
            continue
        if not np.array_equal(_right(of, "log_mel_right"), _right(of_first, "log_mel_right")):
            lines.append(_line(f"log-mel statistics, {setting}", of, "log_mel_right"))
        lines.append(_line(setting, of, "right", seconds=True))
    seeds = len({row.seed for row in rows})
    head = HEAD.format(
        examples=sum(len(row.kits) for row in of_first) // max(1, len({row.seed for row in of_first})),
        kits=len({kit for row in of_first for kit in row.kits}),
        folds=FOLDS,
        seeds=f"{seeds} seed{'s' if seeds > 1 else ''}",
        resamples=RESAMPLES,
    )
    return head + "\n".join(lines) + "\n" + FOOT.format(seeds=_seeds(rows))


def _seeds(rows: Sequence[Row]) -> str:
    """Return a sentence on each setting that is above the baseline: with how many seeds it is when they are alone."""
    sentences = []
    for setting in SETTINGS:
        of = [row for row in rows if row.setting == setting]
        if not of or _difference(of)[0] <= 0:
            continue
        seeds = sorted({row.seed for row in of})
        above = sum(_difference([row for row in of if row.seed == seed])[0] > 0 for seed in seeds)
        sentences.append(
            f"*{setting[:1].upper()}{setting[1:]}*: with one seed alone, above it for {above} of {len(seeds)}."
        )
    return " ".join(sentences)


def _difference(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the interval of the difference from the log-mel statistics."""
    apart = _right(rows, "right") - _right(rows, "log_mel_right")
    return _interval(apart, np.concatenate([np.asarray(row.kits) for row in rows]))


def _whole(rows: Sequence[Row]) -> list[Row]:
    folds: dict[tuple[str, int], set[int]] = {}
    for row in rows:
        folds.setdefault((row.setting, row.seed), set()).add(row.fold)
    return [row for row in rows if len(folds[row.setting, row.seed]) == FOLDS]


def _line(name: str, rows: Sequence[Row], field: str, *, seconds: bool = False) -> str:
    """Return the line of a model: its accuracy, and its difference from the log-mel statistics."""
    right, other = _right(rows, field), _right(rows, "log_mel_right")
    low, high = _interval(right - other, np.concatenate([np.asarray(row.kits) for row in rows]))
    cells = [name, f"{right.mean():.3f}"]
    if field == "log_mel_right":
        cells += ["", ""]
    else:
        cells += [signed(float((right - other).mean())), f"{signed(low)} to {signed(high)}"]
    cells.append(f"{mean(row.seconds for row in rows):.0f}" if seconds else "")
    return f"| {' | '.join(cells)} |"


def _right(rows: Sequence[Row], field: str) -> np.ndarray:
    return np.concatenate([unpack(getattr(row, field), len(row.kits)) for row in rows]).astype(float)


def _interval(apart: np.ndarray, kits: np.ndarray) -> tuple[float, float]:
    """Return the interval of a mean difference when kits are drawn anew, each with all of its sounds."""
    names = np.unique(kits)
    sums = np.array([apart[kits == name].sum() for name in names])
    counts = np.array([(kits == name).sum() for name in names])
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
