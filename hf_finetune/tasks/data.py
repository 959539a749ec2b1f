"""The recipe's data, loaded as its task takes it."""

from typing import Literal

from hf_finetune.data.folds import Fold
from hf_finetune.data.prepare import LabelledData, prepare_data
from hf_finetune.data.table_options import TableOptions
from hf_finetune.data.unlabelled import UnlabelledData, load_unlabelled
from hf_finetune.errors import InputError, Problem
from hf_finetune.recipe import Recipe

__all__ = ["load_data", "load_target", "table_options"]

INPUTS = ("image", "text", "text_pair")


def table_options(recipe: Recipe) -> TableOptions:
    """Return how a recipe's text files are read, for other files that are probably like them."""
    spec = recipe.data
    return TableOptions(spec.encoding, spec.separator, spec.decimal, fallback=True)


def load_data(recipe: Recipe, modality: Literal["image", "text"]) -> LabelledData:
    """Load, check and split the data of a recipe; the same splits at every call.

    Raises:
        InputError: If the data cannot be used.
    """
    spec = recipe.data
    return prepare_data(
        spec.path,
        modality=modality,
        config=spec.config,
        revision=spec.revision,
        columns=spec.columns.model_dump(),
        target=spec.target,
        validation=spec.split.validation,
        test=spec.split.test,
        stratify=spec.split.stratify,
        group=spec.split.group or spec.columns.group,
        on_error=spec.on_error,
        limit=spec.limit,
        fold=Fold(*map(int, spec.split.fold.split("/"))) if spec.split.fold else None,
        slices=recipe.evaluation.slices,
        seed=recipe.seed,
        nested=spec.nested,
        options=TableOptions(spec.encoding, spec.separator, spec.decimal),
    )


def load_target(
    recipe: Recipe, modality: Literal["image", "text"], data: LabelledData | None = None
) -> UnlabelledData | None:
    """Load the inputs of the domain that a recipe adapts to; None if there is none.

    Args:
        recipe: The recipe.
        modality: What an example is.
        data: The labelled data, whose inputs must be of the same kind; None if it is not at hand.
    Raises:
        InputError: If they cannot be used.
    """
    spec = recipe.domain_adaptation
    if spec is None:
        return None
    found = load_unlabelled(
        spec.target,
        modality=modality,
        columns=recipe.data.columns.model_dump(),
        place="domain_adaptation.target",
        on_error=recipe.data.on_error,
        limit=recipe.data.limit,
        seed=recipe.seed,
        options=table_options(recipe),
    )
    if data is not None:
        has, needed = (
            [name for name in INPUTS if name in each.column_names] for each in (found.dataset, data.train)
        )
        if has != needed:
            rule = f"must have the inputs of the data: {' and '.join(needed)}"
            raise InputError(Problem("domain_adaptation.target", rule, " and ".join(has)))
    return found
