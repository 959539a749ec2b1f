"""Parts of the examples on which a search judges recipes; the test split is never among them."""

import json
from dataclasses import dataclass
from math import ceil

from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.recipe_data import load_data
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.cross_validation import recipe_of_fold

__all__ = ["FOLDS", "Part", "PartLoader", "choose_parts", "examples_outside_test"]

FOLDS = 5
"""Number of folds into which the examples are divided."""
FEW_EXAMPLES = 2000
"""Number of examples from which a single fold is held out, instead of each fold once."""
MIN_PREDICTIONS = 600
"""Smallest number of held-out predictions for few examples; it determines how often they are divided into folds."""
MAX_REPEATS = 3

_UNUSED_FIELDS = {"augment", "workers"}
"""Fields of ``data`` that do not change which examples are loaded."""


@dataclass(frozen=True)
class Part:
    """Fold of the examples outside the test split.

    Attributes:
        repeat: Number of the division into folds, counted from 0.
        fold: Number of the fold, counted from 1.
    """

    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """Repeat and fold as text, for file names."""
        return f"{self.repeat}-{self.fold}"


def choose_parts(examples: int) -> tuple[Part, ...]:
    """Return the parts on which recipes are judged, in the order in which they are used.

    Args:
        examples: Number of examples outside the test split.
    """
    if examples >= FEW_EXAMPLES:
        return (Part(0, 1),)
    repeats = min(max(ceil(MIN_PREDICTIONS / examples), 1), MAX_REPEATS)
    return tuple(Part(repeat, fold) for repeat in range(repeats) for fold in range(1, FOLDS + 1))


def examples_outside_test(data: LabeledData) -> int:
    """Return the number of examples outside the test split.

    Args:
        data: Labeled data.
    """
    return len(data.train) + len(data.validation or ())


class PartLoader:
    """Loader of the data of parts; data that recipes share is loaded once.

    Args:
        limit: Number of datasets that are kept in memory.
    """

    def __init__(self, limit: int = MAX_REPEATS * FOLDS):
        self.limit = limit
        self._loaded: dict[str, LabeledData] = {}

    def load(self, recipe: Recipe, part: Part) -> tuple[Recipe, LabeledData]:
        """Return the recipe with which a part is trained, and its data, whose test split is the part.

        Args:
            recipe: Recipe of a single task.
            part: The part.

        Raises:
            InputError: If the data cannot be used, or not be divided.
        """
        fold_recipe = recipe_of_fold(recipe, part.fold, FOLDS)
        content = fold_recipe.data.model_dump(mode="json", exclude=_UNUSED_FIELDS)
        key = json.dumps([content, recipe.evaluation.slices, recipe.seed, part.repeat], sort_keys=True)
        if key not in self._loaded:
            while len(self._loaded) >= self.limit:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[key] = load_data(fold_recipe, fold_seed=recipe.seed + part.repeat)
        return fold_recipe, self._loaded[key]
