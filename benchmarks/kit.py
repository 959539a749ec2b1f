"""What the options of a stage are worth: real data with and without each of them, over several seeds.

    python -m benchmarks.kit [balance] [schedules] [--seeds 3] [--output benchmarks/kit.json]

Every option is a function that gives the settings to be compared, the first of which leaves it out. What it trains is
the head, whose inputs are computed once for all settings of a seed.
"""

import argparse
import csv
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from benchmarks.inputs import DISHES, LITE0, MINILM, REVIEWS
from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run

__all__ = ["OPTIONS", "Row", "Work", "balance", "long_tail", "main", "schedules", "skewed_reviews"]

Content = dict[str, Any]

BALANCES: tuple[Content, ...] = (
    {"method": "none"},
    {"method": "class_weights"},
    {"method": "effective_number", "beta": 0.999},
    {"method": "sampler"},
    {"method": "focal", "gamma": 2.0},
    {"method": "logit_adjustment", "tau": 1.0},
)
SCHEDULES = (
    "constant",
    "linear",
    "cosine",
    "polynomial",
    "exponential",
    "step",
    "cosine_with_restarts",
    "one_cycle",
    "warmup_stable_decay",
    "slanted_triangular",
)
MOST, LEAST = 8, 1  # drawings of the first and of the last class of the long tail
POSITIVE, NEGATIVE, HELD_OUT = 1800, 200, 500  # reviews to train on, and of each class to judge by


@dataclass(frozen=True)
class Work:
    """What is trained.

    Attributes:
        data: What it is called.
        recipe: A recipe, whose stages get the settings.
    """

    data: str
    recipe: Content


@dataclass(frozen=True)
class Row:
    """What came of one run.

    Attributes:
        option: Name of the option.
        setting: What it was set to.
        data: What was trained on.
        seed: The seed.
        metrics: On the test split.
        train_seconds: For training, without what is computed once.
    """

    option: str
    setting: Content
    data: str
    seed: int
    metrics: dict[str, float]
    train_seconds: float


def balance(folder: Path, seed: int) -> Iterator[tuple[Work, Content]]:
    """Give the ways to balance classes, on a long tail of dishes and on reviews of which 9 in 10 are positive."""
    dishes = Work("dishes, long-tailed", image_recipe(long_tail(folder / "dishes", seed)))
    reviews = Work(
        "reviews, 9 to 1", text_recipe(skewed_reviews(folder / "reviews", seed, POSITIVE, NEGATIVE))
    )
    for work in (dishes, reviews):
        for setting in BALANCES:
            yield work, {"balance": setting}


def schedules(folder: Path, seed: int) -> Iterator[tuple[Work, Content]]:
    """Give the schedules, on the dishes and on as many positive as negative reviews."""
    dishes = Work("dishes", image_recipe(str(DISHES)))
    reviews = Work("reviews", text_recipe(skewed_reviews(folder / "reviews", seed, 1000, 1000)))
    for work in (dishes, reviews):
        for name in SCHEDULES:
            yield work, {"schedule": name}


OPTIONS: dict[str, Callable[[Path, int], Iterator[tuple[Work, Content]]]] = {
    "balance": balance,
    "schedules": schedules,
}


def image_recipe(path: str) -> Content:
    """Give the recipe of the head of EfficientNet-lite0."""
    return {
        "task": "image-classification",
        "model": str(LITE0),
        "data": {
            "path": path,
            "columns": {"image": "image", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "image_size": 128,
            "crop_pct": 1.0,
            "augment": "none",
        },
        "stages": [
            {"name": "head", "train": "head", "epochs": 30, "lr": 3e-3, "batch_size": 32, "best": None}
        ],
    }


def text_recipe(path: str) -> Content:
    """Give the recipe of the head of MiniLM."""
    return {
        "task": "text-classification",
        "model": str(MINILM),
        "data": {
            "path": path,
            "columns": {"text": "text", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "max_length": 128,
        },
        "stages": [
            {"name": "head", "train": "head", "epochs": 5, "lr": 1e-2, "batch_size": 32, "best": None}
        ],
    }


def long_tail(folder: Path, seed: int) -> str:
    """Write dishes of which each class has fewer drawings than the one before it, by equal factors.

    The seed decides the order of the classes, and which of their drawings are kept. The test is left whole.

    Source: Cui et al. 2019, n_k = n x mu^k.
    """
    chance = random.Random(seed)
    table = parquet.read_table(DISHES / "train.parquet")
    by_class: dict[Any, list[int]] = {}
    for row, label in enumerate(table["label"].to_pylist()):
        by_class.setdefault(label, []).append(row)
    classes = sorted(by_class)
    chance.shuffle(classes)
    shrink = (LEAST / MOST) ** (1 / (len(classes) - 1))
    kept: list[int] = []
    for index, label in enumerate(classes):
        rows = by_class[label]
        kept += chance.sample(rows, min(len(rows), round(MOST * shrink**index)))
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.take(sorted(kept)), folder / "train.parquet")
    parquet.write_table(parquet.read_table(DISHES / "test.parquet"), folder / "test.parquet")
    return str(folder)


def skewed_reviews(folder: Path, seed: int, positive: int, negative: int) -> str:
    """Write reviews with so many of each class to train on, and as many of both to judge by."""
    chance = random.Random(seed)
    by_class = _reviews()
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for (label, texts), count in zip(sorted(by_class.items()), (negative, positive), strict=True):
        chosen = chance.sample(texts, HELD_OUT + count)
        test += [(text, label) for text in chosen[:HELD_OUT]]
        train += [(text, label) for text in chosen[HELD_OUT:]]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        parquet.write_table(pyarrow.table(columns), folder / f"{name}.parquet")
    return str(folder)


def _reviews() -> dict[str, list[str]]:
    by_text: dict[str, str] = {}
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        by_text.update((row["text"], row["label"]) for row in csv.DictReader(file))
    by_class: dict[str, list[str]] = {}
    for text, label in by_text.items():
        by_class.setdefault(label, []).append(text)
    return by_class


def measure(option: str, seed: int, folder: Path) -> Iterator[Row]:
    """Run all settings of an option with one seed."""
    for number, (work, changes) in enumerate(OPTIONS[option](folder / f"{option}-{seed}", seed)):
        stages = [{**stage, **changes} for stage in work.recipe["stages"]]
        evaluation = {"batch_size": 64, "linear_probe": None}
        metrics = ["balanced_accuracy", "accuracy", "f1_macro"]
        recipe = parse_recipe(
            {**work.recipe, "stages": stages, "evaluation": evaluation, "metrics": metrics, "seed": seed}
        )
        found = run(recipe, folder / f"run-{option}-{seed}-{number}").metrics
        seconds = sum(stage["train_seconds"] for stage in found["stages"])
        yield Row(option, changes, work.data, seed, found["test"], seconds)


def table(rows: Sequence[Row]) -> str:
    """Give the mean over the seeds of each setting, and its difference from the first setting."""
    lines = []
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        settings = groups.setdefault((row.option, row.data), {})
        settings.setdefault(json.dumps(row.setting), []).append(row)
    for (option, data), settings in groups.items():
        lines.append(
            f"{option}, {data}: balanced accuracy, by seed, less the first by seed, training seconds"
        )
        first = [row.metrics["balanced_accuracy"] for row in next(iter(settings.values()))]
        for setting, found in settings.items():
            values = [row.metrics["balanced_accuracy"] for row in found]
            apart = [value - other for value, other in zip(values, first, strict=True)]
            each = " ".join(f"{value:.3f}" for value in values)
            less = " ".join(f"{value:+.3f}" for value in apart)
            seconds = mean(row.train_seconds for row in found)
            lines.append(
                f"  {mean(values):.3f} ({each}) {mean(apart):+.3f} ({less}) {seconds:.1f} s  {setting}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the options that are named, or all, and write their rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*OPTIONS, []], help="the options; all unless given")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "kit.json")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-kit-") as scratch:
        os.environ["HF_FINETUNE_CACHE"] = f"{scratch}/cache"
        for option in options.names or OPTIONS:
            for seed in range(options.seeds):
                for row in measure(option, seed, Path(scratch)):
                    rows.append(row)
                    print(json.dumps(asdict(row)), file=sys.stderr, flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
