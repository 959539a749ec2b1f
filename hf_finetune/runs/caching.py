"""Work that a run does only once: outputs of frozen layers, and decoded images."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.cache.decoded_examples import decode_once
from hf_finetune.cache.pooled_texts import poolings_for
from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.cache.views import choose_views
from hf_finetune.data.joint_tasks import MultiTaskDataset
from hf_finetune.data.split_names import SPLITS
from hf_finetune.methods import cache_blocker
from hf_finetune.models.head_spec import get_pooling
from hf_finetune.models.layer_sum import feature_layer, has_layer_sum, layer_kinds
from hf_finetune.models.pooling import declared_pooling
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.head import OWN_POOLING
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.speed import PrefixCacheSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TRAINING_LABEL
from hf_finetune.tasks import TASKS, Inputs

__all__ = [
    "cache_settings",
    "cached_views",
    "decode_images",
    "feature_kinds",
    "has_linear_probe",
    "has_simple_baselines",
    "probe_settings",
    "without_augmentation",
]

logger = logging.getLogger(__name__)

VIEWS_FOR_HEAD_FIT = 2
"""Number of views of each example that a head is fitted on."""


def cache_settings(prepared: PreparedRun, spec: StageSpec, plan: StagePlan) -> CacheSettings | None:
    """Return the cache settings of a stage's frozen layers; None if nothing is cached.

    Args:
        prepared: Checked run.
        spec: The stage.
        plan: Plan of the stage.
    """
    recipe = prepared.recipe
    cache_spec = recipe.speed.prefix_cache
    if cache_spec is None:
        return None
    views, epochs = cached_views(recipe, cache_spec, spec, plan)
    return CacheSettings(
        cache_folder(),
        views,
        epochs,
        cache_spec.size_limit,
        _sources(prepared),
        cache_blocker(recipe, spec, plan)
        or prepared.task.modality.caching_objection(prepared.processor, recipe.data),
        _text_pooling(prepared),
        shares_layer=_reads_layer(prepared),
    )


def _text_pooling(prepared: PreparedRun) -> str:
    """Return the pooling whose vectors of unaugmented texts the head reads; empty if there are none."""
    if prepared.is_joint or not prepared.task.modality.has_tokens or _is_augmented(prepared.recipe):
        return ""
    return get_pooling(prepared.config) or OWN_POOLING


def _reads_layer(prepared: PreparedRun) -> bool:
    """Return whether the head reads one layer of unaugmented examples."""
    if prepared.is_joint or _is_augmented(prepared.recipe):
        return False
    return has_layer_sum(prepared.config) and feature_layer(prepared.config) is not None


def has_linear_probe(prepared: PreparedRun) -> bool:
    """Return whether a linear probe also predicts the test split."""
    max_examples = prepared.recipe.evaluation.linear_probe
    if TARGETS[prepared.data.target].linear_solver is None:
        return False
    return (
        max_examples is not None
        and len(prepared.data.train) <= max_examples
        and prepared.data.test is not None
    )


def has_simple_baselines(prepared: PreparedRun) -> bool:
    """Return whether models of simple features also predict the test split.

    Args:
        prepared: Checked run.
    """
    if has_linear_probe(prepared):
        return True
    asked = prepared.recipe.evaluation.linear_probe is not None and prepared.data.test is not None
    features = prepared.task.modality.simple_features
    return (
        asked
        and features is not None
        and features.is_quick
        and TARGETS[prepared.data.target].linear_solver is not None
    )


def probe_settings(prepared: PreparedRun) -> CacheSettings:
    """Return the cache settings of the features of unaugmented examples.

    A stage that trains the head of the same recipe without augmentation shares these features.

    Args:
        prepared: Run from ``without_augmentation``.
    """
    spec = prepared.recipe.speed.prefix_cache or PrefixCacheSpec()
    return CacheSettings(cache_folder(), 1, None, spec.size_limit, _sources(prepared))


def without_augmentation(prepared: PreparedRun) -> PreparedRun:
    """Return the run without augmentation: its training examples are transformed as for inference.

    Args:
        prepared: Checked run.
    """
    data = prepared.task.modality.without_augmentation(prepared.recipe.data)
    return replace(prepared, recipe=prepared.recipe.model_copy(update={"data": data}))


def feature_kinds(prepared: PreparedRun) -> tuple[str, ...]:
    """Return the poolings of texts, or the layers of a speech model, to compare for a run; none for images.

    Args:
        prepared: Checked run.
    """
    if not prepared.task.modality.has_tokens:
        return layer_kinds(prepared.config)
    spec = prepared.recipe.model
    return poolings_for(prepared.config, declared_pooling(spec.path, spec.revision))


def cached_views(
    recipe: Recipe, cache_spec: PrefixCacheSpec, spec: StageSpec, plan: StagePlan
) -> tuple[int, float | None]:
    """Return the number of cached views of each example, and the number of epochs over which caching must pay off.

    Args:
        recipe: Recipe with its stages expanded.
        cache_spec: The recipe's settings of the cache.
        spec: The stage.
        plan: Plan of the stage.

    Returns:
        Number of views, and of epochs; None for the epochs if the frozen outputs are cached in any case.
    """
    epochs, augmented = plan.epochs or 1.0, _is_augmented(recipe)
    if solver_of(spec):
        views = cache_spec.views if isinstance(cache_spec.views, int) else VIEWS_FOR_HEAD_FIT
        return views if augmented else 1, None
    views = choose_views(epochs, augmented=augmented)
    if isinstance(cache_spec.views, int):
        return cache_spec.views if augmented else views, None
    only_head = all(group.layers == "head" for group in plan.groups)
    if only_head and not augmented and recipe.evaluation.linear_probe is not None:
        epochs += 1  # the linear probe reads the features of unaugmented examples
    return views, epochs


def _is_augmented(recipe: Recipe) -> bool:
    return TASKS[recipe.task_type].modality.is_augmented(recipe.data)


def decode_images(inputs: Inputs, prepared: PreparedRun, settings: Sequence[CacheSettings | None]) -> Inputs:
    """Return the inputs with images decoded once and cached, if ``decode_once`` is true or if that is estimated faster.

    Args:
        inputs: Examples as model inputs.
        prepared: Checked run.
        settings: Cache settings of each stage.
    """
    speed = prepared.recipe.speed
    if speed.decode_once is False or not prepared.task.modality.opens_files:
        return inputs
    train = validation = 0
    for plan, cache_setting in zip(prepared.plan.stages, settings, strict=True):
        passes = ceil(plan.epochs or 1.0)
        if (
            cache_setting is None
            or cache_setting.reason_not_to_cache
            or plan.trainable_size == plan.layout.size
        ):
            train, validation = train + passes, validation + passes
        else:
            train, validation = train + cache_setting.views, validation + 1
    limit = (speed.prefix_cache or PrefixCacheSpec()).size_limit
    size = 0

    def decode(examples: Inputs, sources: Mapping[str, str]) -> Inputs:
        nonlocal size
        decoded_inputs, report = decode_once(
            examples,
            prepared.task.modality,
            train_passes=train,
            validation_passes=validation,
            folder=cache_folder(),
            size_limit=limit - size,
            sources=sources,
            always=speed.decode_once is True,
        )
        size += report.bytes
        return decoded_inputs

    sources = {split: _source(prepared, split, augmented=False) for split in SPLITS}
    decoded_inputs = _decode_by_task(inputs, sources, decode)
    if size:
        logger.info("Decoded %s cached: %s bytes.", prepared.task.modality.plural, f"{size:,}")
    return decoded_inputs


def _decode_by_task(
    inputs: Inputs, sources: Mapping[str, str], decode: Callable[[Inputs, Mapping[str, str]], Inputs]
) -> Inputs:
    """Decode the images of each task separately."""
    train, validation = inputs.train, inputs.validation
    if not isinstance(train, MultiTaskDataset):
        return decode(inputs, sources)

    def of(task: str) -> dict[str, str]:
        return {split: f"{source}-{task}" for split, source in sources.items()}

    decoded_train = [
        decode(replace(inputs, train=part, validation=None), of(task.name)).train
        for part, task in zip(train.datasets, train.columns, strict=True)
    ]
    if validation is not None:
        decoded_validation = [
            decode(replace(inputs, train=(), validation=part), of(task.name)).validation
            for part, task in zip(validation.datasets, validation.columns, strict=True)
        ]
        validation = validation.over(decoded_validation)
    return replace(inputs, train=train.over(decoded_train), validation=validation)


def _sources(prepared: PreparedRun) -> dict[str, str]:
    """Return an identifier of the examples of each split; only training examples are augmented."""
    augmented = _is_augmented(prepared.recipe)
    return {split: _source(prepared, split, augmented=augmented and split == "train") for split in SPLITS}


def _source(prepared: PreparedRun, split: str, *, augmented: bool) -> str:
    """Return a hash of the examples of a split: contents, labels, preprocessing, and seed of the augmentation."""
    recipe, data = prepared.recipe, prepared.data
    excluded = {"path", "workers", "on_error", "split"}  # their effect is in the fingerprint
    if not augmented:
        excluded |= {"augment"}
    spec: dict[str, Any] = recipe.data.model_dump(mode="json", exclude=excluded)
    has_training_labels = split == "train" and TRAINING_LABEL in data.train.column_names
    content = [
        data.source_fingerprint(split),
        spec,
        str(prepared.processor),
        recipe.seed if augmented else None,
        has_training_labels,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
