"""Choice of the pooling of frozen texts, or of the layer of a speech model, by cross-validation."""

import copy
import logging
from dataclasses import replace

import torch
from accelerate import PartialState

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.feature_kinds import ForwardSettings
from hf_finetune.cache.frozen_kinds import features_by_kind
from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import labels_of
from hf_finetune.models.head_spec import head_problem
from hf_finetune.models.layer_sum import feature_layer, has_layer_sum, layer_fields, layer_kinds, set_layers
from hf_finetune.models.pooling import HEAD_POOLINGS
from hf_finetune.performance.execution_modes import DTYPES
from hf_finetune.recipe.head import OWN_POOLING, describe_kind
from hf_finetune.recipe.head_fit import selects_pooling_by_cv
from hf_finetune.runs.caching import feature_kinds, probe_settings, without_augmentation
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PoolingChoice, PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.training.linear_fit import fit_best
from hf_finetune.training.linear_folds import assign_folds
from hf_finetune.training.manifest import Manifest

__all__ = ["choose_pooling", "chosen_kind"]

logger = logging.getLogger(__name__)


def choose_pooling(
    prepared: PreparedRun, strategy: str | None, before: Manifest | None, state: PartialState
) -> PreparedRun:
    """Choose the pooling of frozen texts, or the layer of a speech model, by cross-validation.

    The poolings are the architecture's own, the first token, and the mean. All but the first one need the head of this
    package. The recipe of the run then contains the pooling or the layer. Nothing is chosen if the recipe sets it, for
    images, for several tasks, with an adapter or another head, or if a stage trains the backbone.

    Args:
        prepared: Checked run.
        strategy: Name of the strategy that the stages come from; None if the recipe lists them.
        before: Manifest of the run that is resumed, whose pooling is kept; None for a new run.
        state: State of the process; all processes call this function.

    Returns:
        The run with its pooling and the loss of each candidate.
    """
    is_open = selects_pooling_by_cv(prepared.recipe.model, prepared.recipe.stages, strategy)
    if prepared.is_joint or not is_open or not feature_kinds(prepared):
        return prepared
    losses: dict[str, float] | str = broadcast_from_main(
        state, lambda: _compare_poolings(prepared, state.device)
    )
    if isinstance(losses, str):
        logger.info(
            "Pooling or layer not chosen by cross-validation, because %s; the architecture's default is used.",
            losses,
        )
        return prepared
    order = sorted(losses, key=losses.__getitem__)
    if before is not None:
        order = [_chosen_before(before, prepared)]
    chosen = next(filter(None, (_with_pooling(prepared, name, state) for name in order)), prepared)
    kind = chosen_kind(chosen)
    other_losses = ", ".join(
        f"{describe_kind(name)} {loss:.4f}" for name, loss in losses.items() if name != kind
    )
    needs_code = chosen.recipe.model.head.pool not in (None, OWN_POOLING)
    hint = " Plain transformers needs trust_remote_code=True for this head." if needs_code else ""
    logger.info(
        f"The head reads {describe_kind(kind)}, with a cross-validated loss of {losses[kind]:.4f} "
        f"({other_losses}).{hint}"
    )
    return replace(chosen, pooling=PoolingChoice(losses, prepared))


def chosen_kind(prepared: PreparedRun) -> str:
    """Return the name of the pooling or of the layer that the head of a run reads.

    Args:
        prepared: Checked run.
    """
    if has_layer_sum(prepared.config):
        return feature_layer(prepared.config) or ""
    return prepared.recipe.model.head.pool or OWN_POOLING


def _chosen_before(before: Manifest, prepared: PreparedRun) -> str:
    """Return the pooling or layer of the run that is resumed."""
    head = before.recipe.get("model", {}).get("head", {})
    if not has_layer_sum(prepared.config):
        return head.get("pool") or OWN_POOLING
    config = copy.deepcopy(prepared.config)
    set_layers(config, head.get("layers"))
    return feature_layer(config) or ""


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
        vectors_by_kind = features_by_kind(
            model,
            {name: examples for name, examples in splits.items() if examples is not None},
            inputs.collate,
            probe_settings(plain),
            feature_kinds(prepared),
            ForwardSettings(recipe.stages[0].batch_size, device, DTYPES.get(recipe.speed.precision)),
        )
    except CacheUnavailableError as error:
        return str(error)
    labels = data.train["label"][:]
    folds = assign_folds(labels, target, 1, recipe.seed, groups=data.train_groups)
    classes = len(data.label_names)
    label_rows = labels_of(data.train, target, classes)
    vectors = {
        name: by_split["train"]
        for name, by_split in vectors_by_kind.items()
        if name in (OWN_POOLING, *HEAD_POOLINGS, *layer_kinds(prepared.config))
    }
    return fit_best(vectors, label_rows, target, classes, folds)[2]


def _with_pooling(prepared: PreparedRun, name: str, state: PartialState) -> PreparedRun | None:
    """Return the run whose head reads the named pooling or layer; None if the architecture does not support that."""
    if name in (OWN_POOLING, feature_layer(prepared.config) if has_layer_sum(prepared.config) else None):
        return prepared
    field = layer_fields(name) if has_layer_sum(prepared.config) else {"pool": name}
    head = prepared.recipe.model.head.model_copy(update=field)
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
