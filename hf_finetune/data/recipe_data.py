"""Loading of a recipe's data: labeled examples, and unlabeled inputs of the target domain."""

from hf_finetune.data.prepare import LabeledData, prepare_data
from hf_finetune.data.table_options import table_options
from hf_finetune.data.unlabeled import UnlabeledData, load_unlabeled
from hf_finetune.errors import InputError, Problem
from hf_finetune.recipe.schema import Recipe
from hf_finetune.tasks import TASKS

__all__ = ["load_data", "load_domain_inputs"]


def load_data(recipe: Recipe, fold_seed: int | None = None) -> LabeledData:
    """Load, check and split the labeled data of a recipe; every call returns the same splits.

    Args:
        recipe: Recipe of one task.
        fold_seed: Seed of the division into the folds of ``data.split.fold``; None is that of the recipe.

    Returns:
        Train, validation and test splits.

    Raises:
        InputError: If the data cannot be used.
    """
    task = TASKS[recipe.task_type]
    spec = recipe.data.model_copy(update={"target": task.label_type(recipe.data.target)})
    return prepare_data(
        spec,
        task.modality,
        slices=recipe.evaluation.slices,
        seed=recipe.seed,
        fold_seed=fold_seed,
    )


def load_domain_inputs(recipe: Recipe, data: LabeledData | None = None) -> UnlabeledData | None:
    """Load the unlabeled inputs of a recipe's target domain; return None without domain adaptation.

    Args:
        recipe: Recipe of the run.
        data: Labeled data, whose input columns must be the same; None skips this check.

    Returns:
        The inputs; None without domain adaptation.

    Raises:
        InputError: If the inputs cannot be used.
    """
    spec = recipe.domain_adaptation
    if spec is None:
        return None
    modality = TASKS[recipe.task_type].modality
    domain_inputs = load_unlabeled(
        spec.target,
        modality=modality,
        columns=recipe.data.columns.model_dump(),
        place="domain_adaptation.target",
        on_error=recipe.data.on_error,
        limit=recipe.data.limit,
        seed=recipe.seed,
        options=table_options(recipe.data),
    )
    if data is not None:
        target_columns = modality.columns_in(domain_inputs.dataset.column_names)
        train_columns = modality.columns_in(data.train.column_names)
        if target_columns != train_columns:
            rule = f"must have the input columns of the training data: {' and '.join(train_columns)}"
            raise InputError(Problem("domain_adaptation.target", rule, " and ".join(target_columns)))
    return domain_inputs
