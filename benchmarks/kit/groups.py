"""Groups of settings to compare; the first setting of each group is the reference."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.inputs import LITE0, MINILM
from benchmarks.kit import data
from hf_finetune.recipe.schedule import ScheduleSpec

__all__ = ["GROUPS", "Group", "recipe_of"]

Content = dict[str, Any]
Changes = Mapping[str, Any]

HELD_OUT: Content = {"validation": 0.15, "test": 0, "stratify": True}
BATCH: Content = {"batch_size": 32, "best": None}


@dataclass(frozen=True)
class Group:
    """Settings that are compared with the first of them.

    Attributes:
        title: Title of the section.
        on: Description of the data and the stages.
        data: Function that writes the data of a seed to a folder, and returns the path for the recipe.
        base: Recipe without path and seed.
        settings: Changes of the base by name; the first one is the reference. A key is a dotted path, ``stage`` is
            every stage, and ``{data}`` in a text the path of the data. ``tasks`` are added to the base's own task.
        metric: Metric to compare: ``accuracy`` or ``balanced_accuracy``.
        task: Name of the base's own task, whose metric is compared in multi-task settings.
    """

    title: str
    on: str
    data: Callable[[Path, int], str]
    base: Content
    settings: Mapping[str, Changes]
    metric: str = "accuracy"
    task: str = "dish"


def recipe_of(group: Group, name: str, path: str, seed: int) -> Content:
    """Return the recipe of a setting of a group."""
    content = deepcopy(group.base)
    content["data"]["path"] = "{data}"
    for key, value in group.settings[name].items():
        place, _, rest = key.partition(".")
        for part in content["stages"] if place == "stage" else [content]:
            _set(part, rest if place == "stage" else key, value)
    if "strategy" in content:
        del content["stages"]
    if "tasks" in content:
        own = {field: content["data"].pop(field) for field in ("path", "columns", "split")}
        first = {"task": content["task"], "data": own}
        content.update(task="multi-task", tasks={group.task: first, **content["tasks"]})
    found: Content = _filled({**content, "seed": seed}, path)
    return found


def _filled(value: Any, path: str) -> Any:
    """Return the value with ``{data}`` replaced by the path of the data."""
    if isinstance(value, dict):
        return {key: _filled(each, path) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(each, path) for each in value]
    return value.replace("{data}", path) if isinstance(value, str) else value


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


def _text_all(epochs: int) -> Content:
    """Return the text recipe that trains all layers for a number of epochs."""
    return _texts(
        {"name": "head", "train": "head", "epochs": 1, "lr": 1e-2},
        {"name": "all", "train": "all", "epochs": epochs, "lr": 1e-4, "warmup": 0.1},
    )


TEXT_ALL = _text_all(2)

ADAPTED_IMAGES: tuple[Content, ...] = (
    {"name": "head", "train": "head", "epochs": 15, "lr": 3e-3},
    {"name": "all", "train": "all", "epochs": 5, "lr": 5e-4},
)


def _adapted_texts() -> Content:
    """Return the recipe of short sentences, with a mean-pooling head, which suits them better."""
    content = _texts(
        {"name": "head", "train": "head", "epochs": 2, "lr": 1e-2},
        {"name": "all", "train": "all", "epochs": 2, "lr": {"head": 1e-3, "backbone": 5e-5}},
    )
    content["model"]["head"] = {"pool": "mean"}
    content["data"].update(max_length=64, on_error="skip")
    return content


def _smaller(base: Content) -> Content:
    """Return an image recipe with fewer pixels, for groups of many runs."""
    return {**base, "data": {**base["data"], "image_size": 96}}


def _with_validation(base: Content) -> Content:
    """Return a recipe with a validation split."""
    return {**base, "data": {**base["data"], "split": HELD_OUT}}


BALANCES: dict[str, Changes] = {
    "balance: none": {},
    "balance: class_weights": {"stage.balance": "class_weights"},
    "balance: effective_number": {"stage.balance": "effective_number"},
    "balance: sampler": {"stage.balance": "sampler"},
    "balance: focal": {"stage.balance": "focal"},
    "balance: logit_adjustment": {"stage.balance": "logit_adjustment"},
}
TEXT_BALANCES: dict[str, Changes] = {
    **BALANCES,
    "balance: {method: class_weights, weights: {negative: 3.0}}": {
        "stage.balance": {"method": "class_weights", "weights": {"negative": 3.0}}
    },
}
RATES: dict[str, Changes] = {
    f"schedule: {name}": {"stage.schedule": name} for name in sorted(ScheduleSpec.options())
}
# A cosine head learns nothing at the learning rate of the others; 0.03 was better than 0.01 (seed 5, dishes).
HEADS: dict[str, Changes] = {
    "model: {head: linear}": {},
    "model: {head: {type: mlp, hidden: [512]}}": {"model.head": {"type": "mlp", "hidden": [512]}},
    "model: {head: cosine}, lr: 0.03": {"model.head": "cosine", "stage.lr": 0.03},
    "model: {head: {pool: attention}}": {"model.head": {"pool": "attention"}},
}
TEXT_HEADS: dict[str, Changes] = {
    **HEADS,
    "model: {head: {pool: cls}}": {"model.head": {"pool": "cls"}},
    "model: {head: {pool: mean}}": {"model.head": {"pool": "mean"}},
}
IMAGE_AUGMENTS: dict[str, Changes] = {
    "data: {augment: none}": {"data.augment": "none"},
    **{
        f"data: {{augment: {name}}}": {"data.augment": name}
        for name in ("light", "standard", "strong", "seeds", "trivial", "randaugment")
    },
    "data: {augment: {preset: standard, erase: 0.25}}": {
        "data.augment": {"preset": "standard", "erase": 0.25}
    },
    "data: {augment: {transforms: [RandomHorizontalFlip, {name: RandomRotation, args: {degrees: 15}}]}}": {
        "data.augment": {
            "transforms": ["RandomHorizontalFlip", {"name": "RandomRotation", "args": {"degrees": 15}}]
        }
    },
}
TEXT_AUGMENTS: dict[str, Changes] = {
    "data: {augment: none}": {},
    "data: {augment: {mask: 0.15}}": {"data.augment": {"mask": 0.15}},
    "data: {augment: {drop: 0.1}}": {"data.augment": {"drop": 0.1}},
}

OF_STAGES: dict[str, Changes] = {
    "weight_decay: 0": {"stage.weight_decay": 0.0},
    "weight_decay: 0.1": {"stage.weight_decay": 0.1},
    "label_smoothing: 0.1": {"stage.label_smoothing": 0.1},
    "regularize: {gradient_noise: 1e-8}": {"stage.regularize": {"gradient_noise": 1e-8}},
    "model: {dropout: 0.3}": {"model.dropout": 0.3},
}
IMAGE_REGULAR: dict[str, Changes] = {
    "the common recipe": {},
    **OF_STAGES,
    "regularize: {l1: 0.01}": {"stage.regularize": {"l1": 0.01}},
    "regularize: {l2_sp: 1.0}": {"stage.regularize": {"l2_sp": 1.0}},
    "model: {drop_path: 0.2}": {"model.drop_path": 0.2},
    "regularize: {mixup: 0.2}": {"stage.regularize": {"mixup": 0.2}},
    "regularize: {cutmix: 1.0}": {"stage.regularize": {"cutmix": 1.0}},
}
TEXT_REGULAR: dict[str, Changes] = {
    "the common recipe": {},
    **OF_STAGES,
    # 20 times the strengths of the images, because the learning rates are 20 times smaller.
    "regularize: {l1: 0.2}": {"stage.regularize": {"l1": 0.2}},
    "regularize: {l2_sp: 20.0}": {"stage.regularize": {"l2_sp": 20.0}},
    "regularize: {r_drop: 1.0}": {"stage.regularize": {"r_drop": 1.0}},
}
CHOOSING: dict[str, Changes] = {
    "best: {metric: accuracy}": {"stage.best": {"metric": "accuracy"}},
    "best: null": {},
    "early_stopping: 1": {"stage.best": {"metric": "accuracy"}, "stage.early_stopping": 1},
    "regularize: {ema: 0.95}": {"stage.best": {"metric": "accuracy"}, "stage.regularize": {"ema": 0.95}},
}
FEATURES: dict[str, Changes] = {
    "stages: [{train: head}]": {},
    "strategy: {name: features, classifier: sgd}": {"strategy": {"name": "features", "classifier": "sgd"}},
    "strategy: features": {"strategy": "features"},
}
# The weights of coral and dann were set by the size of their loss term on seed 0, not by accuracy.
IMAGE_DOMAIN: dict[str, Changes] = {
    "domain_adaptation: null": {},
    "domain_adaptation: {method: continue_pretraining, epochs: 5, source: true}": {
        "domain_adaptation": {
            **{"target": "{data}-unlabelled", "method": "continue_pretraining"},
            **{"epochs": 5, "lr": 5e-5, "source": True},
        }
    },
    "domain_adaptation: {method: coral, weight: 1000.0}": {
        "domain_adaptation": {"target": "{data}-unlabelled", "method": "coral", "weight": 1000.0}
    },
    "domain_adaptation: {method: dann, weight: 0.1}": {
        "domain_adaptation": {"target": "{data}-unlabelled", "method": "dann", "weight": 0.1}
    },
}
TEXT_DOMAIN: dict[str, Changes] = {
    "domain_adaptation: null": {},
    "domain_adaptation: {method: continue_pretraining, epochs: 2}": {
        "domain_adaptation": {
            **{"target": "{data}-unlabelled", "method": "continue_pretraining"},
            **{"epochs": 2, "lr": 5e-5},
        }
    },
    "domain_adaptation: {method: coral, weight: 30000.0}": {
        "domain_adaptation": {"target": "{data}-unlabelled", "method": "coral", "weight": 30_000.0}
    },
    "domain_adaptation: {method: dann, weight: 0.1}": {
        "domain_adaptation": {"target": "{data}-unlabelled", "method": "dann", "weight": 0.1}
    },
}
STYLE_TASK: Content = {
    "task": "image-classification",
    "data": {
        "path": "{data}/train.parquet",
        "columns": {"image": "image", "label": "style"},
        "split": {"validation": 0, "test": 0.2, "group": "label"},
        "on_error": "skip",  # some dishes share a drawing, which must not be in both train and test
    },
}
TASKS: dict[str, Changes] = {
    "dish alone": {},
    "dish and style": {"tasks": {"style": STYLE_TASK}},
    "dish and style, weight: 0.2": {"tasks": {"style": {**STYLE_TASK, "weight": 0.2}}},
    "dish and style, weighting: uncertainty": {"tasks": {"style": STYLE_TASK}, "weighting": "uncertainty"},
}
PRODUCT_TASK: Content = {
    "task": "text-classification",
    "data": {
        "path": "{data}-products",
        "columns": {"text": "text", "label": "label"},
        "split": {"validation": 0, "test": 0.2},
    },
}
TEXT_TASKS: dict[str, Changes] = {
    "film alone": {},
    "film and product": {"tasks": {"product": PRODUCT_TASK}},
    "film and product, weighting: uncertainty": {
        "tasks": {"product": PRODUCT_TASK},
        "weighting": "uncertainty",
    },
    "film and product, mixing: equal": {"tasks": {"product": PRODUCT_TASK}, "mixing": "equal"},
}

GROUPS: dict[str, Group] = {
    "balance-dishes": Group(
        "Class imbalance",
        "dishes, class sizes from 8 down to 1; stage: head",
        data.long_tail,
        IMAGE_HEAD,
        BALANCES,
        "balanced_accuracy",
    ),
    "balance-reviews": Group(
        "Class imbalance",
        "reviews, 1,800 positive and 200 negative; stage: head",
        data.skewed_reviews,
        TEXT_HEAD,
        TEXT_BALANCES,
        "balanced_accuracy",
    ),
    "heads-dishes": Group("Heads", "dishes; stage: head", data.dishes, IMAGE_HEAD, HEADS),
    "heads-reviews": Group("Heads", "1,000 reviews; stage: head", data.reviews, TEXT_HEAD, TEXT_HEADS),
    "schedules-dishes": Group("Schedules", "dishes; stage: head", data.dishes, IMAGE_HEAD, RATES),
    "schedules-reviews": Group("Schedules", "1,000 reviews; stage: head", data.reviews, TEXT_HEAD, RATES),
    "augment-dishes": Group(
        "Augmentation", "dishes; stages: head, all layers", data.dishes, IMAGE_ALL, IMAGE_AUGMENTS
    ),
    "augment-reviews": Group(
        "Augmentation", "1,000 reviews; stages: head, all layers", data.reviews, TEXT_ALL, TEXT_AUGMENTS
    ),
    "regularize-dishes": Group(
        "Regularization",
        "dishes, 96 x 96 pixels; stages: head, all layers",
        data.dishes,
        _smaller(IMAGE_ALL),
        IMAGE_REGULAR,
    ),
    "regularize-reviews": Group(
        "Regularization",
        "1,000 reviews; stages: head, all layers",
        data.reviews,
        TEXT_ALL,
        TEXT_REGULAR,
    ),
    "choosing-dishes": Group(
        "Checkpoint selection and early stopping",
        "dishes, 96 x 96 pixels, 15 % as validation split; stages: head, all layers",
        data.dishes,
        _with_validation(_smaller(IMAGE_ALL)),
        CHOOSING,
    ),
    "choosing-reviews": Group(
        "Checkpoint selection and early stopping",
        "1,000 reviews, 15 % as validation split; stages: head, all layers",
        data.reviews,
        _with_validation(_text_all(5)),  # so that there is something to choose from
        CHOOSING,
    ),
    "features-dishes": Group("Strategy features", "dishes; stage: head", data.dishes, IMAGE_HEAD, FEATURES),
    "features-reviews": Group(
        "Strategy features", "1,000 reviews; stage: head", data.reviews, TEXT_HEAD, FEATURES
    ),
    "domain-dishes": Group(
        "Domain adaptation",
        "training: dishes of four styles; unlabeled target: half of the dishes of a fifth style; test: the other "
        "half; stages: head, all layers",
        data.other_style,
        _images("standard", *ADAPTED_IMAGES),
        IMAGE_DOMAIN,
    ),
    "domain-reviews": Group(
        "Domain adaptation",
        "training: 1,000 sentences about products; unlabeled target: 1,000 sentences about films; test: 1,000 "
        "others; stages: head, all layers",
        data.other_reviews,
        _adapted_texts(),
        TEXT_DOMAIN,
    ),
    "tasks-dishes": Group(
        "Multi-task learning",
        "dishes, 96 x 96 pixels; stages: heads, all layers",
        data.dishes,
        _smaller(IMAGE_ALL),
        TASKS,
    ),
    "tasks-reviews": Group(
        "Multi-task learning",
        "1,000 film reviews, and 500 rated sentences about products; stages: heads, all layers",
        data.reviews_and_products,
        _text_all(1),
        TEXT_TASKS,
        task="film",
    ),
}
