"""Contenders of an automatic search: one recipe for each strategy that is worth a trial."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_finetune.errors import InputError, counted
from hf_finetune.recipe.balance import SEARCHED_BALANCE
from hf_finetune.recipe.head import CHECKPOINT_POOLING
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import InspectedData
from hf_finetune.targets import TARGETS

__all__ = [
    "FEATURES",
    "Contender",
    "features_recipe",
    "frozen_contenders",
    "trained_contenders",
    "with_epochs",
]

FEATURES = "frozen features"
CACHED_VIEWS = 2
"""Number of views of each augmented example in the prefix cache."""
HEAD_EPOCHS = 20
"""Number of epochs of a head that is trained on frozen features."""
SKEW = 5.0
"""Ratio of the sizes of the largest and the smallest class from which balanced classes are tried."""


@dataclass(frozen=True)
class Contender:
    """Recipe that takes part in a search.

    Attributes:
        strategy: Strategy in words.
        recipe: Recipe of the strategy.
    """

    strategy: str
    recipe: Recipe

    @property
    def fields(self) -> dict[str, Any]:
        """Values that distinguish the contender from others."""
        return {"strategy": self.strategy, "model": self.recipe.model.path}


def frozen_contenders(data: InspectedData, models: Sequence[str]) -> list[Contender]:
    """Return a contender for the frozen features of each checkpoint.

    Args:
        data: Inspected data.
        models: Checkpoints.
    """
    return [Contender(FEATURES, features_recipe(data, model)) for model in models]


def trained_contenders(data: InspectedData, model: str, quality: str) -> list[Contender]:
    """Return the contenders that train layers, in the order in which they are tried.

    Args:
        data: Inspected data.
        model: Checkpoint.
        quality: ``fast`` (one strategy), ``good`` or ``best`` (all strategies).
    """
    trained = [
        Contender(name, parse_recipe(content)) for name, content in _strategies(_draft(data, model), data)
    ]
    return trained[: {"fast": 1, "good": 5}.get(quality)]


def features_recipe(data: InspectedData, model: str) -> Recipe:
    """Return a recipe that only fits a head to the frozen features of unaugmented examples.

    If no solver fits the architecture's own head, a linear head with the pooling that suits the checkpoint replaces it.
    If no solver fits that one either, the architecture's own head is trained by gradient steps.

    Args:
        data: Inspected data.
        model: Checkpoint.
    """
    draft = _draft(data, model)
    augment = dict(data.task.modality.no_augmentation)
    head = {"name": "head", "train": "head", "fit": "auto", "epochs": HEAD_EPOCHS}
    content = {**draft, "data": {**draft["data"], "augment": augment}, "stages": [head]}
    recipe = parse_recipe(content)
    if _is_fitted(recipe, data):
        return recipe
    pooled = parse_recipe({**content, "model": {"path": model, "head": {"pool": CHECKPOINT_POOLING}}})
    return pooled if _is_fitted(pooled, data) else recipe


def _is_fitted(recipe: Recipe, data: InspectedData) -> bool:
    """Return whether a solver fits the head of a recipe."""
    try:
        return bool(solver_of(prepare_with_data(recipe, data.data).recipe.stages[0]))
    except InputError:  # reported when the recipe is tried
        return False


def with_epochs(contender: Contender, factor: float) -> Contender | None:
    """Return a contender whose last stage has fewer epochs; None if that would not be at least one, or not fewer.

    Args:
        contender: Contender that trains layers.
        factor: Fraction of the epochs.
    """
    content = contender.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    stages = [dict(stage) for stage in content["stages"]]
    last = stages[-1]
    epochs = int(last["epochs"] * factor)
    if not 1 <= epochs < last["epochs"]:
        return None
    last["epochs"] = epochs
    if epochs <= CACHED_VIEWS:  # a cached view would be used only once
        content["speed"] = {"prefix_cache": None}
    recipe = parse_recipe({**content, "stages": stages})
    return Contender(f"{contender.strategy}, {counted(epochs, 'epoch')}", recipe)


def _draft(data: InspectedData, model: str) -> dict[str, Any]:
    """Return the fields of the drafted recipe, in which no choice is measured: it can be repeated bit for bit."""
    content, _ = read_yaml(draft_recipe(data, model), "The recipe")
    return {**content, "speed": {"prefix_cache": CACHED_VIEWS}}


def _strategies(draft: Mapping[str, Any], data: InspectedData) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and recipe of each strategy that trains layers, the most promising first."""
    yield "linear probe, then fine-tune", dict(draft)
    yield "linear probe, then all layers", _change_last(draft, train="all", layer_decay=0.8)
    if _is_skewed(data):
        yield "balanced classes", _change_last(draft, **SEARCHED_BALANCE)
    for value in data.task.modality.searched_augmentations:
        content = {**draft, "data": {**draft["data"], "augment": value}}
        yield f"augmentation {value}", content
    yield "linear probe, then last group", _change_last(draft, train="last:1")
    yield "more epochs", _change_last(draft, epochs=12)
    yield (
        "adapter",
        {**_change_last(draft, train="lora"), "model": {"path": draft["model"], "adapter": "lora"}},
    )


def _change_last(draft: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the recipe with other fields in its last stage."""
    *first, last = draft["stages"]
    return {**draft, "stages": [*first, {**last, **fields}]}


def _is_skewed(data: InspectedData) -> bool:
    """Return whether one class has many times the examples of another."""
    if not TARGETS[data.data.target].is_exclusive:
        return False
    counts = Counter(data.data.train["label"][:]).values()
    return max(counts) >= SKEW * min(counts)
