"""What adapting to another domain is worth: accuracy in a domain without labels, with and without each method.

    python -m benchmarks.kit_domain [dishes] [reviews] [--seeds 3] [--share 1] [--output benchmarks/kit_domain.json]

Dishes: trained on the drawings of four sets, and judged by those of a fifth, of which the other half, unlabelled, is
what is adapted to. Reviews: trained on sentences about products (Amazon), and judged by sentences about films; others
of these, unlabelled, are what is adapted to.
"""

import argparse
import csv
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from benchmarks.inputs import AMAZON, DISHES, LITE0, MINILM, REVIEWS
from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run

__all__ = ["WORKS", "Row", "dishes", "main", "reviews"]

Content = dict[str, Any]

SOURCE_STYLES, TARGET_STYLE = ("emojione", "noto", "noto-v1", "streamline"), "fluent"
UNLABELLED, HELD_OUT = 2000, 500  # sentences about films: to adapt to, and of each class to judge by
METHODS: dict[str, dict[str, Content | None]] = {
    "dishes": {
        "without": None,
        "continue_pretraining": {"method": "continue_pretraining", "epochs": 5, "lr": 5e-5, "source": True},
        "coral": {"method": "coral", "weight": 1000.0},
        "dann": {"method": "dann", "weight": 0.1},
    },
    "reviews": {
        "without": None,
        "continue_pretraining": {"method": "continue_pretraining", "epochs": 2, "lr": 5e-5},
        "coral": {"method": "coral", "weight": 30_000.0},
        "dann": {"method": "dann", "weight": 0.1},
    },
}


@dataclass(frozen=True)
class Row:
    """What came of one run.

    Attributes:
        data: What was trained on.
        method: How it was adapted.
        setting: The fields of that.
        seed: The seed.
        metrics: On labelled examples of the other domain.
        seconds: For training, pretraining included.
    """

    data: str
    method: str
    setting: Content | None
    seed: int
    metrics: dict[str, float]
    seconds: float


def dishes(folder: Path, seed: int) -> tuple[Content, str]:
    """Write the drawings, and give a recipe without adaptation and where the unlabelled drawings are."""
    tables = [parquet.read_table(DISHES / f"{name}.parquet") for name in ("train", "test")]
    table = pyarrow.concat_tables(tables)
    styles, labels = table["style"].to_pylist(), table["label"].to_pylist()
    by_class: dict[Any, list[int]] = {}
    for row, style in enumerate(styles):
        if style == TARGET_STYLE:
            by_class.setdefault(labels[row], []).append(row)
    chance = random.Random(seed)
    unlabelled, test = [], []
    for label in sorted(by_class):
        rows = chance.sample(by_class[label], len(by_class[label]))
        unlabelled += rows[: len(rows) // 2]
        test += rows[len(rows) // 2 :]
    train = [row for row, style in enumerate(styles) if style in SOURCE_STYLES]
    target = _write(folder, table, train, test, unlabelled, ["image"])
    stages = [
        {"name": "head", "train": "head", "epochs": 15, "lr": 3e-3, "batch_size": 32, "best": None},
        {"name": "all", "train": "all", "epochs": 5, "lr": 5e-4, "batch_size": 32, "best": None},
    ]
    recipe = {
        "task": "image-classification",
        "model": str(LITE0),
        "data": {
            "path": str(folder / "labelled"),
            "columns": {"image": "image", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "image_size": 128,
            "crop_pct": 1.0,
        },
        "stages": stages,
    }
    return recipe, target


def reviews(folder: Path, seed: int) -> tuple[Content, str]:
    """Write the sentences, and give a recipe without adaptation and where the unlabelled ones are."""
    source, films = (_read(path) for path in (AMAZON, REVIEWS))
    chance = random.Random(seed)
    test: list[int] = []
    for label in ("negative", "positive"):
        test += chance.sample([row for row, (_, found) in enumerate(films) if found == label], HELD_OUT)
    left = sorted(set(range(len(films))) - set(test))
    rows = [*source, *films]
    table = pyarrow.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    held, unlabelled = (
        [len(source) + row for row in chosen] for chosen in (test, chance.sample(left, UNLABELLED))
    )
    target = _write(folder, table, list(range(len(source))), held, unlabelled, ["text"])
    stages = [
        {"name": "head", "train": "head", "epochs": 2, "lr": 1e-2, "batch_size": 32, "best": None},
        {
            "name": "all",
            "train": "all",
            "epochs": 2,
            "lr": {"head": 1e-3, "backbone": 5e-5},
            "batch_size": 32,
            "best": None,
        },
    ]
    recipe = {
        "task": "text-classification",
        "model": {"path": str(MINILM), "head": {"pool": "mean"}},
        "data": {
            "path": str(folder / "labelled"),
            "columns": {"text": "text", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "max_length": 64,
            "on_error": "skip",
        },
        "stages": stages,
    }
    return recipe, target


WORKS = {"dishes": dishes, "reviews": reviews}
LAYOUTS = {"dishes": "channels_last", "reviews": "contiguous"}


def _read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list({row["text"]: row["label"] for row in csv.DictReader(file)}.items())


def _write(
    folder: Path,
    table: pyarrow.Table,
    train: Sequence[int],
    test: Sequence[int],
    unlabelled: Sequence[int],
    columns: Sequence[str],
) -> str:
    labelled, target = folder / "labelled", folder / "unlabelled"
    for place in (labelled, target):
        place.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.take(train), labelled / "train.parquet")
    parquet.write_table(table.take(test), labelled / "test.parquet")
    parquet.write_table(table.take(unlabelled).select(columns), target / "train.parquet")
    return str(target)


def measure(name: str, seed: int, folder: Path, share: float = 1.0) -> Iterator[Row]:
    """Run a recipe as it is, and with each method, for a share of their epochs."""
    recipe, target = WORKS[name](folder / f"{name}-{seed}", seed)
    for method, setting in METHODS[name].items():
        setting = setting and _shorter({**setting, "target": target}, share)
        content = {
            **recipe,
            "stages": [_shorter(stage, share) for stage in recipe["stages"]],
            "domain_adaptation": setting,
            "metrics": ["accuracy", "balanced_accuracy", "f1_macro"],
            "evaluation": {"linear_probe": None},
            "speed": {"precision": "fp32", "compile": False, "memory_format": LAYOUTS[name]},
            "seed": seed,
        }
        found = run(parse_recipe(content), folder / f"run-{name}-{seed}-{method}").metrics
        seconds = sum(stage["train_seconds"] for stage in found["stages"])
        seconds += found.get("pretraining", {}).get("train_seconds", 0.0)
        plain = setting and {key: value for key, value in setting.items() if key != "target"}
        yield Row(name, method, plain, seed, found["test"], seconds)


def _shorter(part: Content, share: float) -> Content:
    return {**part, "epochs": part["epochs"] * share} if "epochs" in part else part


def table(rows: Sequence[Row]) -> str:
    """Give the mean over the seeds of each method, and its difference from the recipe without."""
    lines = []
    for name in dict.fromkeys(row.data for row in rows):
        of_data = [row for row in rows if row.data == name]
        first = {row.seed: row.metrics["accuracy"] for row in of_data if row.method == "without"}
        lines.append(f"{name}: accuracy in the other domain, by seed, less that without by seed, seconds")
        for method in METHODS[name]:
            found = [row for row in of_data if row.method == method]
            values = [row.metrics["accuracy"] for row in found]
            apart = [row.metrics["accuracy"] - first[row.seed] for row in found]
            each = " ".join(f"{value:.3f}" for value in values)
            less = " ".join(f"{value:+.3f}" for value in apart)
            seconds = mean(row.seconds for row in found)
            lines.append(
                f"  {mean(values):.3f} ({each}) {mean(apart):+.3f} ({less}) {seconds:.0f} s  {method}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is named, or all, and write the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit_domain", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*WORKS, []], help="the data; all unless given")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--share", type=float, default=1.0, help="share of the epochs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "kit_domain.json")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-kit-domain-") as scratch:
        os.environ["HF_FINETUNE_CACHE"] = f"{scratch}/cache"
        for name in options.names or WORKS:
            for seed in range(options.seeds):
                for row in measure(name, seed, Path(scratch), options.share):
                    rows.append(row)
                    print(json.dumps(asdict(row)), file=sys.stderr, flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
