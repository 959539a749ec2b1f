"""Choice of the pooling of frozen texts by cross-validation."""

import logging
from dataclasses import replace

import torch
from accelerate import PartialState

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.pooled_texts import pool_texts
from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import labels_of
from hf_finetune.models.head_spec import head_problem
from hf_finetune.models.pooling import HEAD_POOLINGS
from hf_finetune.performance.execution_modes import DTYPES
from hf_finetune.recipe.head import OWN_POOLING, POOLING_DESCRIPTIONS
from hf_finetune.recipe.head_fit import selects_pooling_by_cv
from hf_finetune.runs.caching import probe_settings, text_poolings, without_augmentation
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PoolingChoice, PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.training.linear_fit import assign_folds, fit_best
from hf_finetune.training.manifest import Manifest

__all__ = ["choose_pooling"]

logger = logging.getLogger(__name__)


def choose_pooling(
    prepared: PreparedRun, strategy: str | None, before: Manifest | None, state: PartialState
) -> PreparedRun:
    """Choose the pooling of frozen texts by cross-validation, where the recipe leaves it open.

    The candidates are the architecture's own pooling, the first token, and the mean. All but the first candidate need
    the head of this package; the recipe of the run then contains the pooling. Nothing is chosen for images, for several
    tasks, with an adapter or another head, or if a stage trains the backbone.

    Args:
        prepared: Checked run.
        strategy: Name of the strategy that the stages come from; None if the recipe lists them.
        before: Manifest of the run that is resumed, whose pooling is kept; None for a new run.
        state: State of the process; all processes call this function.

    Returns:
        The run with its pooling and the loss of each candidate.
    """
    is_open = selects_pooling_by_cv(prepared.recipe.model, prepared.recipe.stages, strategy)
    if not prepared.task.modality.has_tokens or prepared.is_joint or not is_open:
        return prepared
    losses: dict[str, float] | str = broadcast_from_main(
        state, lambda: _compare_poolings(prepared, state.device)
    )
    if isinstance(losses, str):
        logger.info("The head keeps the architecture's own pooling: %s.", losses)
        return prepared
    order = sorted(losses, key=losses.__getitem__)
    if before is not None:
        order = [before.recipe.get("model", {}).get("head", {}).get("pool") or OWN_POOLING]
    chosen = next(filter(None, (_with_pooling(prepared, name, state) for name in order)), prepared)
    pool = chosen.recipe.model.head.pool or OWN_POOLING
    other_losses = ", ".join(
        f"{POOLING_DESCRIPTIONS[name]} {loss:.4f}" for name, loss in losses.items() if name != pool
    )
    hint = "" if pool == OWN_POOLING else " Plain transformers needs trust_remote_code=True for this head."
    logger.info(
        f"The head reads {POOLING_DESCRIPTIONS[pool]}, with a cross-validated loss of {losses[pool]:.4f} "
        f"({other_losses}).{hint}"
    )
    return replace(chosen, pooling=PoolingChoice(losses, prepared))


def _compare_poolings(prepared: PreparedRun, device: torch.device) -> dict[str, float] | str:
    """Return the cross-validated loss of each pooling on the training split.

    If the vectors cannot be computed, the return value is the reason.
    """
    if TARGETS[prepared.data.target].linear_solver is None:
        return f"no solver supports the loss of {prepared.data.target} labels"
    plain, data, target = without_augmentation(prepared), prepared.data, prepared.data.target
    recipe, model = plain.recipe, load_pretrained(prepared).model
    inputs = prepare_inputs(plain.task, data, plain.processor, recipe.data, recipe.seed)
    splits = {"train": inputs.train, "validation": inputs.validation}
    try:
        vectors_by_pooling = pool_texts(
            model,
            {name: examples for name, examples in splits.items() if examples is not None},
            inputs.collate,
            probe_settings(plain),
            text_poolings(prepared),
            batch_size=recipe.stages[0].batch_size,
            device=device,
            autocast=DTYPES.get(recipe.speed.precision),
        )
    except CacheUnavailableError as error:
        return str(error)
    labels = data.train["label"][:]
    folds = assign_folds(labels, target, 1, recipe.seed, groups=data.train_groups)
    classes = len(data.label_names)
    label_rows = labels_of(data.train, target, classes)
    vectors = {
        name: by_split["train"]
        for name, by_split in vectors_by_pooling.items()
        if name in (OWN_POOLING, *HEAD_POOLINGS)
    }
    return fit_best(vectors, label_rows, target, classes, folds)[2]


def _with_pooling(prepared: PreparedRun, name: str, state: PartialState) -> PreparedRun | None:
    """Return the run with the named pooling in its head; None if the architecture does not support that head."""
    if name == OWN_POOLING:
        return prepared
    head = prepared.recipe.model.head.model_copy(update={"pool": name})
    model = prepared.recipe.model.model_copy(update={"head": head})
    recipe = prepared.recipe.model_copy(update={"model": model})
    try:
        pooled = prepare_with_data(
            recipe, prepared.data, state.num_processes, trust_remote_code=prepared.trust_remote_code
        )
        if head_problem(
            load_pretrained(pooled).model, prepared.task.modality.synthetic_batch(prepared.processor)
        ):
            return None
    except InputError:
        return None
    requested = prepared.requested.model_copy(update={"model": model})
    return replace(prepared, recipe=recipe, requested=requested, config=pooled.config, plan=pooled.plan)
