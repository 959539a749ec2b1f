"""What is compared: groups of settings, of which the first leaves the options out. Everything that one might change."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.inputs import LITE0, MINILM
from benchmarks.kit import data
from hf_finetune.recipe.schedule import ScheduleName

__all__ = ["GROUPS", "Group", "recipe_of"]

Content = dict[str, Any]
Changes = Mapping[str, Any]

WITHOUT = "without"
BATCH: Content = {"batch_size": 32, "best": None}


@dataclass(frozen=True)
class Group:
    """Settings that are compared with the first of them.

    Attributes:
        title: What it is about.
        on: What the data are called.
        data: Writes the data of a seed into a folder, and gives the path for the recipe.
        base: A recipe without path and seed.
        settings: Changes of the base by name; the first are none. A key is a dotted path, ``stage`` is every stage.
        metric: By which it is judged, ``accuracy`` or ``balanced_accuracy``.
    """

    title: str
    on: str
    data: Callable[[Path, int], str]
    base: Content
    settings: Mapping[str, Changes]
    metric: str = "accuracy"


def recipe_of(group: Group, name: str, path: str, seed: int) -> Content:
    """Give the recipe of a setting of a group."""
    content = deepcopy(group.base)
    content["data"]["path"] = path
    for key, value in group.settings[name].items():
        place, _, rest = key.partition(".")
        for part in content["stages"] if place == "stage" else [content]:
            _set(part, rest if place == "stage" else key, value)
    if "strategy" in content:
        del content["stages"]
    return {**content, "seed": seed}


def _set(content: Content, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = value


def _images(augment: str, *stages: Content) -> Content:
    return {
        "task": "image-classification",
        "model": {"path": str(LITE0)},
        "data": {
            "columns": {"image": "image", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "image_size": 128,
            "crop_pct": 1.0,
            "augment": augment,
        },
        "stages": [{**stage, **BATCH} for stage in stages],
        "metrics": ["accuracy", "balanced_accuracy"],
        "evaluation": {"batch_size": 64, "linear_probe": None},
        "speed": {"memory_format": "channels_last"},
    }


def _texts(*stages: Content) -> Content:
    return {
        "task": "text-classification",
        "model": {"path": str(MINILM)},
        "data": {
            "columns": {"text": "text", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "max_length": 128,
        },
        "stages": [{**stage, **BATCH} for stage in stages],
        "metrics": ["accuracy", "balanced_accuracy"],
        "evaluation": {"batch_size": 64, "linear_probe": None},
    }


IMAGE_HEAD = _images("none", {"name": "head", "train": "head", "epochs": 30, "lr": 3e-3})
TEXT_HEAD = _texts({"name": "head", "train": "head", "epochs": 5, "lr": 1e-2})
IMAGE_ALL = _images(
    "standard",
    {"name": "head", "train": "head", "epochs": 4, "lr": 3e-3, "schedule": "cosine"},
    {"name": "all", "train": "all", "epochs": 5, "lr": 2e-3, "schedule": "cosine"},
)
TEXT_ALL = _texts(
    {"name": "head", "train": "head", "epochs": 1, "lr": 1e-2},
    {"name": "all", "train": "all", "epochs": 2, "lr": 1e-4, "warmup": 0.1},
)

BALANCES: dict[str, Changes] = {
    WITHOUT: {},
    "balance: class_weights": {"stage.balance": "class_weights"},
    "balance: effective_number": {"stage.balance": "effective_number"},
    "balance: sampler": {"stage.balance": "sampler"},
    "balance: focal": {"stage.balance": "focal"},
    "balance: logit_adjustment": {"stage.balance": "logit_adjustment"},
}
RATES: dict[str, Changes] = {
    f"schedule: {name}": {"stage.schedule": name} for name in sorted(get_args(ScheduleName))
}
# A cosine head learns nothing at the others' rate; of 0.01 and 0.03 the latter reached more (seed 5, dishes).
HEADS: dict[str, Changes] = {
    "head: linear": {},
    "head: {type: mlp, hidden: [512]}": {"model.head": {"type": "mlp", "hidden": [512]}},
    "head: cosine, lr: 0.03": {"model.head": "cosine", "stage.lr": 0.03},
    "head: {pool: attention}": {"model.head": {"pool": "attention"}},
}
TEXT_HEADS: dict[str, Changes] = {
    **HEADS,
    "head: {pool: cls}": {"model.head": {"pool": "cls"}},
    "head: {pool: mean}": {"model.head": {"pool": "mean"}},
}
IMAGE_AUGMENTS: dict[str, Changes] = {
    "augment: none": {"data.augment": "none"},
    **{
        f"augment: {name}": {"data.augment": name}
        for name in ("light", "standard", "strong", "seeds", "trivial", "randaugment")
    },
    "augment: {preset: standard, erase: 0.25}": {"data.augment": {"preset": "standard", "erase": 0.25}},
}
TEXT_AUGMENTS: dict[str, Changes] = {
    WITHOUT: {},
    "augment: {mask: 0.15}": {"data.augment": {"mask": 0.15}},
    "augment: {drop: 0.1}": {"data.augment": {"drop": 0.1}},
}

GROUPS: dict[str, Group] = {
    "balance-dishes": Group(
        "Classes of different sizes",
        "dishes, 8 drawings of the first class to 1 of the last; the head",
        data.long_tail,
        IMAGE_HEAD,
        BALANCES,
        "balanced_accuracy",
    ),
    "balance-reviews": Group(
        "Classes of different sizes",
        "reviews, 1,800 positive and 200 negative; the head",
        data.skewed_reviews,
        TEXT_HEAD,
        BALANCES,
        "balanced_accuracy",
    ),
    "heads-dishes": Group("Heads", "dishes; the head", data.dishes, IMAGE_HEAD, HEADS),
    "heads-reviews": Group("Heads", "1,000 reviews; the head", data.reviews, TEXT_HEAD, TEXT_HEADS),
    "schedules-dishes": Group("Schedules", "dishes; the head", data.dishes, IMAGE_HEAD, RATES),
    "schedules-reviews": Group("Schedules", "1,000 reviews; the head", data.reviews, TEXT_HEAD, RATES),
    "augment-dishes": Group(
        "Augmentation", "dishes; the head, then everything", data.dishes, IMAGE_ALL, IMAGE_AUGMENTS
    ),
    "augment-reviews": Group(
        "Augmentation", "1,000 reviews; the head, then everything", data.reviews, TEXT_ALL, TEXT_AUGMENTS
    ),
}
