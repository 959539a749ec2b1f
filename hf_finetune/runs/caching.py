"""Work that a run does only once: outputs of frozen layers, and decoded images."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.cache.decoded_examples import decode_once
from hf_finetune.cache.pooled_texts import poolings_for
from hf_finetune.cache.prefix_cache import CacheSettings, TextVectors
from hf_finetune.cache.views import choose_views
from hf_finetune.data.joint_tasks import MultiTaskDataset
from hf_finetune.methods import cache_blocker
from hf_finetune.models.head_spec import get_pooling
from hf_finetune.models.pooling import declared_pooling
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.head import OWN_POOLING
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.speed import PrefixCacheSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS, Inputs

__all__ = [
    "cache_settings",
    "cached_views",
    "decode_images",
    "has_linear_probe",
    "probe_settings",
    "text_poolings",
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
    source = _digest(prepared, recipe.seed if _is_augmented(recipe) else None)
    views, epochs = cached_views(recipe, cache_spec, spec, plan)
    objection = cache_blocker(recipe, spec, plan)
    texts = _shared_texts(prepared)
    return CacheSettings(cache_folder(), views, epochs, cache_spec.size_limit, source, objection, texts)


def _shared_texts(prepared: PreparedRun) -> TextVectors | None:
    """Return the vectors of unaugmented texts that the choice of the pooling or the baseline needs as well."""
    if (
        prepared.is_joint
        or _is_augmented(prepared.recipe)
        or not (prepared.pooling or has_linear_probe(prepared))
    ):
        return None
    poolings = text_poolings(prepared.pooling.before if prepared.pooling else prepared)
    pooling = get_pooling(prepared.config) or OWN_POOLING
    if pooling not in poolings:
        return None
    return TextVectors(
        poolings, pooling, prepared.pooling.key if prepared.pooling and pooling != OWN_POOLING else ""
    )


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


def probe_settings(prepared: PreparedRun) -> CacheSettings:
    """Return the cache settings of the features of unaugmented examples.

    A stage that trains the head of the same recipe without augmentation shares these features.

    Args:
        prepared: Run from ``without_augmentation``.
    """
    spec = prepared.recipe.speed.prefix_cache or PrefixCacheSpec()
    return CacheSettings(cache_folder(), 1, None, spec.size_limit, _digest(prepared, None))


def without_augmentation(prepared: PreparedRun) -> PreparedRun:
    """Return the run without augmentation: its training examples are transformed as for inference."""
    augment = AugmentSpec(**prepared.task.modality.no_augmentation)
    data = prepared.recipe.data.model_copy(update={"augment": augment})
    return replace(prepared, recipe=prepared.recipe.model_copy(update={"data": data}))


def text_poolings(prepared: PreparedRun) -> tuple[str, ...]:
    """Return the text poolings to compare for a run; none for images."""
    if not prepared.task.modality.has_tokens:
        return ()
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
    return TASKS[recipe.task_type].modality.is_augmented(recipe.data.augment)


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

    def decode(examples: Inputs, source: str) -> Inputs:
        nonlocal size
        decoded_inputs, report = decode_once(
            examples,
            prepared.task.modality,
            train_passes=train,
            validation_passes=validation,
            folder=cache_folder(),
            size_limit=limit - size,
            source=source,
            always=speed.decode_once is True,
        )
        size += report.bytes
        return decoded_inputs

    decoded_inputs = _decode_by_task(inputs, _digest(prepared, None), decode)
    if size:
        logger.info("Decoded %s cached: %s bytes.", prepared.task.modality.plural, f"{size:,}")
    return decoded_inputs


def _decode_by_task(inputs: Inputs, source: str, decode: Callable[[Inputs, str], Inputs]) -> Inputs:
    """Decode the images of each task separately."""
    train, validation = inputs.train, inputs.validation
    if not isinstance(train, MultiTaskDataset):
        return decode(inputs, source)
    decoded_train = [
        decode(replace(inputs, train=part, validation=None), f"{source}-{task.name}").train
        for part, task in zip(train.datasets, train.columns, strict=True)
    ]
    if validation is not None:
        decoded_validation = [
            decode(replace(inputs, train=(), validation=part), f"{source}-{task.name}").validation
            for part, task in zip(validation.datasets, validation.columns, strict=True)
        ]
        validation = validation.over(decoded_validation)
    return replace(inputs, train=train.over(decoded_train), validation=validation)


def _digest(prepared: PreparedRun, seed: int | None) -> str:
    """Return a hash of the examples: data, preprocessing, and seed of the augmentation."""
    excluded = {"path", "workers", "on_error", "split"}  # their effect is in the fingerprint
    if not _is_augmented(prepared.recipe):
        excluded |= {"augment"}  # all spellings of no augmentation are the same
    spec: dict[str, Any] = prepared.recipe.data.model_dump(mode="json", exclude=excluded)
    data = prepared.data if prepared.data.pool is None else prepared.data.pool
    source = [data.fingerprint, spec, str(prepared.processor), seed]
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
