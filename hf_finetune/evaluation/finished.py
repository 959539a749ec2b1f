"""Load fine-tuned models, and find the run, the recipe and the training columns of a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.data.table_options import NO_OPTIONS, TableOptions
from hf_finetune.evaluation.classifier import Classifier, load_classifier, resolve_model_dir
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.models.remote_code import check_declared, list_remote_code
from hf_finetune.recipe.yaml_text import read_yaml

if TYPE_CHECKING:
    from hf_finetune.recipe.schema import Recipe

__all__ = ["find_run", "find_run_recipe", "load_finished", "run_options", "training_columns"]

RECIPE = "recipe.yaml"
"""File of a run directory."""


def load_finished(
    model_or_run: str | Path,
    *,
    task: str | None = None,
    batch_size: int = 64,
    trust_remote_code: bool = False,
) -> Classifier:
    """Load a fine-tuned model with ``load_classifier``, after checking the remote code that its run's recipe declares.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        task: Expected pipeline task; None takes the task of the model.
        batch_size: Examples per forward pass.
        trust_remote_code: Whether code stored next to the weights may run.

    Returns:
        The loaded model.

    Raises:
        InputError: If there is no such model, or if the run needs code stored next to its weights that may not run.
    """
    source = resolve_model_dir(model_or_run)
    if list_remote_code(source) and (recipe := find_run_recipe(model_or_run)) is not None:
        check_declared(recipe.model.trust_remote_code, trust_remote_code, source)
    return load_classifier(
        model_or_run, task=task, batch_size=batch_size, trust_remote_code=trust_remote_code
    )


def training_columns(model_or_run: str | Path, classifier: Classifier) -> dict[str, Any] | None:
    """Return the columns of the data that a model was trained on, by role.

    Models of older versions do not store their columns; for them the columns of the run's recipe are returned, if the
    recipe names the input columns.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        classifier: The model, as ``load_classifier`` returns it.

    Returns:
        Column of each role of the modality, and ``label``; None if the columns are not known.
    """
    if classifier.columns is not None:
        return dict(classifier.columns)
    recipe = find_run_recipe(model_or_run)
    if recipe is None:
        return None
    named = recipe.data.columns.model_dump(mode="json")
    modality = classifier.modality
    if named[modality.main_column] is None:
        return None
    return {key: named[key] for key in (*modality.columns, "label")}


def run_options(model_or_run: str | Path) -> TableOptions:
    """Return the options with which a run read its text files; no options for a model that does not belong to a run.

    The recipe is read without the schema, whose import takes longer than many predictions.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
    """
    run = find_run(model_or_run)
    if run is None:
        return NO_OPTIONS
    file = run / RECIPE
    content, _ = read_yaml(file.read_text(encoding="utf-8"), str(file))
    data = as_mapping(as_mapping(content).get("data"))
    return TableOptions(data.get("encoding"), data.get("separator"), data.get("decimal"), fallback=True)


def find_run_recipe(model_or_run: str | Path) -> "Recipe | None":
    """Read the recipe of a run; None for a model that does not belong to a run.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.

    Returns:
        The recipe, or None.
    """
    from hf_finetune.recipe.load import load_recipe

    run = find_run(model_or_run)
    return load_recipe(run / RECIPE) if run is not None else None


def find_run(model_or_run: str | Path) -> Path | None:
    """Find the run directory that a model belongs to; None for a model that does not belong to a run.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.

    Returns:
        The run directory, or None.
    """
    source = resolve_model_dir(model_or_run)
    run = Path(source).parent
    if (run.parent / "tasks" / Path(source).name / "manifest.json").is_file() and run.name == "model":
        # multi-task run: RUN/model/NAME belongs to RUN/tasks/NAME
        run = run.parent / "tasks" / Path(source).name
    # Any recipe may be next to a checkpoint; only a run directory contains a manifest as well.
    is_run = isinstance(source, Path) and all((run / name).is_file() for name in (RECIPE, "manifest.json"))
    return run if is_run else None
