"""Work that a run does only once: outputs of frozen layers, decoded images, and the choice of the pooling."""

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from math import ceil
from time import perf_counter
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.decoded_examples import decode_once
from hf_finetune.cache.estimate import CacheEstimate, estimate_cache_size
from hf_finetune.cache.pooled_texts import pool_texts, poolings_for
from hf_finetune.cache.prefix_cache import CacheSettings, TextVectors, choose_views, not_worth_caching
from hf_finetune.data.joint_tasks import MixedExamples
from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import labels_of
from hf_finetune.methods import cache_objection
from hf_finetune.models.build import build_skeleton, load_processor
from hf_finetune.models.compression import apply_pruned_shapes
from hf_finetune.models.head_spec import head_problem, pooling_of
from hf_finetune.models.pooling import HEAD_POOLINGS, declared_pooling
from hf_finetune.performance.execution_modes import DTYPES, ExecutionMode, benchmark_steps
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe import Recipe, StageSpec
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.head import OWN, POOLING_NAMES
from hf_finetune.recipe.head_fit import chooses_pooling, fitted_by
from hf_finetune.recipe.schema import PrefixCacheSpec
from hf_finetune.runs.checkpoint import add_recipe_adapter, build_joint_skeleton, load_pretrained
from hf_finetune.runs.prepare import prepare_with
from hf_finetune.runs.prepared import PlanReport, PoolingChoice, PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS, Inputs
from hf_finetune.training.freezing import freeze_all_but, unfreeze_modes
from hf_finetune.training.linear_fit import assign_folds, fit_best
from hf_finetune.training.manifest import Manifest

__all__ = [
    "cache_settings",
    "choose_pooling",
    "decode_images",
    "estimate_seconds",
    "frozen_work",
    "has_baseline",
    "probe_settings",
    "text_poolings",
    "without_augmentation",
]

logger = logging.getLogger(__name__)

TIMED_EXAMPLES, TIMED_STEPS = 8, 2
"""Number of examples in a step, and number of steps, that are timed to estimate the duration of a stage."""
FITTED_VIEWS = 2
"""Number of augmented versions of each example that a head is fitted on."""

POOLING_IS_OPEN = (
    "token pooling: chosen by cross-validation when the run begins. Any pooling but the architecture's own needs "
    "trust_remote_code=True in plain transformers; model.head: {pool: own} keeps the architecture's own"
)

Subject = tuple[PreTrainedModel, dict[str, torch.Tensor]]


def cache_settings(prepared: PreparedRun, stage: StageSpec, planned: StagePlan) -> CacheSettings | None:
    """Return the cache settings of a stage's frozen layers; None if nothing is cached."""
    recipe = prepared.recipe
    spec = recipe.speed.prefix_cache
    if spec is None:
        return None
    source = _digest(prepared, recipe.seed if _is_augmented(recipe) else None)
    unsound = cache_objection(recipe, stage, planned)
    views = _views(recipe, spec, stage, planned)
    return CacheSettings(cache_folder(), *views, spec.size_limit, source, unsound, _shared_texts(prepared))


def _shared_texts(prepared: PreparedRun) -> TextVectors | None:
    """Return the vectors of unaugmented texts that the choice of the pooling or the baseline needs as well."""
    if (
        prepared.is_joint
        or _is_augmented(prepared.recipe)
        or not (prepared.pooling or has_baseline(prepared))
    ):
        return None
    poolings = text_poolings(prepared.pooling.before if prepared.pooling else prepared)
    reads = pooling_of(prepared.config) or OWN
    if reads not in poolings:
        return None
    return TextVectors(poolings, reads, prepared.pooling.key if prepared.pooling and reads != OWN else "")


def has_baseline(prepared: PreparedRun) -> bool:
    """Return whether the test split is also predicted by a logistic regression on frozen features."""
    most = prepared.recipe.evaluation.linear_probe
    if not TARGETS[prepared.data.target].has_standard_loss:
        return False
    return most is not None and len(prepared.data.train) <= most and prepared.data.test is not None


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


def choose_pooling(
    prepared: PreparedRun, strategy: str | None, before: Manifest | None, state: PartialState
) -> PreparedRun:
    """Choose the pooling of frozen texts by cross-validation, where the recipe leaves it open.

    The candidates are the architecture's own pooling, the first token, and the mean. All but the own one need the head
    of this package; the recipe of the run then states the pooling. Nothing is chosen for images, several tasks, with
    an adapter or another head, or where a stage trains the backbone.

    Args:
        prepared: Checked run.
        strategy: Name of the strategy that the stages come from; None if the recipe lists them.
        before: Manifest of the run that is resumed, whose pooling is kept; None for a new run.
        state: The processes; all of them call this.

    Returns:
        The run with its pooling and the loss of each candidate.
    """
    is_open = chooses_pooling(prepared.recipe.model, prepared.recipe.stages, strategy)
    if not prepared.task.modality.has_tokens or prepared.is_joint or not is_open:
        return prepared
    compared: tuple[dict[str, float], str] | str = broadcast_from_main(
        state, lambda: _compare_poolings(prepared, state.device)
    )
    if isinstance(compared, str):
        logger.info("The head keeps the architecture's own pooling: %s.", compared)
        return prepared
    losses, key = compared
    order = sorted(losses, key=losses.__getitem__)
    if before is not None:
        order = [before.recipe.get("model", {}).get("head", {}).get("pool") or OWN]
    chosen = next(filter(None, (_with_pooling(prepared, name, state) for name in order)), prepared)
    pool = chosen.recipe.model.head.pool or OWN
    others = ", ".join(f"{POOLING_NAMES[name]} {loss:.4f}" for name, loss in losses.items() if name != pool)
    needs = "" if pool == OWN else " Plain transformers needs trust_remote_code=True for this head."
    logger.info(
        f"The head reads {POOLING_NAMES[pool]}, with a cross-validated loss of {losses[pool]:.4f} ({others}).{needs}"
    )
    return replace(chosen, pooling=PoolingChoice(losses, prepared, key))


def _compare_poolings(prepared: PreparedRun, device: torch.device) -> tuple[dict[str, float], str] | str:
    """Return the cross-validated loss of each pooling on the training split, and the name of the cached vectors.

    Where they cannot be computed, the return value is the reason.
    """
    plain, data, target = without_augmentation(prepared), prepared.data, prepared.data.target
    recipe, model = plain.recipe, load_pretrained(prepared).model
    inputs = prepare_inputs(plain.task, data, plain.processor, recipe.data, recipe.seed)
    splits = {"train": inputs.train, "validation": inputs.validation}
    try:
        found = pool_texts(
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
    answers = labels_of(data.train, target, classes)
    own_or_head = [name for name in found.vectors if name in (OWN, *HEAD_POOLINGS)]
    vectors = {name: found.vectors[name]["train"] for name in own_or_head}
    return fit_best(vectors, answers, target, classes, folds)[2], found.key


def _with_pooling(prepared: PreparedRun, name: str, state: PartialState) -> PreparedRun | None:
    """Return the run with the named pooling in its head; None if the architecture does not support that head."""
    if name == OWN:
        return prepared
    head = prepared.recipe.model.head.model_copy(update={"pool": name})
    model = prepared.recipe.model.model_copy(update={"head": head})
    recipe = prepared.recipe.model_copy(update={"model": model})
    try:
        pooled = prepare_with(
            recipe, prepared.data, state.num_processes, trust_remote_code=prepared.trust_remote_code
        )
        if head_problem(load_pretrained(pooled).model, prepared.task.modality.dummy(prepared.processor)):
            return None
    except InputError:
        return None
    requested = prepared.requested.model_copy(update={"model": model})
    return replace(prepared, recipe=recipe, requested=requested, config=pooled.config, plan=pooled.plan)


def frozen_work(report: PlanReport, strategy: str | None = None) -> list[str]:
    """Return a sentence for each stage: how often its frozen layers are computed, and the size of their cache.

    Args:
        report: Plan.
        strategy: Name of the strategy that the stages come from; None if the recipe lists them.
    """
    subject = cache(lambda: _subject(report))
    stages = enumerate(zip(report.recipe.stages, report.plan.stages, strict=True))
    sentences = [_frozen_work(report, index, stage, planned, subject) for index, (stage, planned) in stages]
    reads_texts = TASKS[report.recipe.kind].modality.has_tokens
    if reads_texts and chooses_pooling(report.recipe.model, report.recipe.stages, strategy):
        sentences[0] = "\n".join([*filter(None, sentences[:1]), POOLING_IS_OPEN])
    return sentences


def _frozen_work(
    report: PlanReport, index: int, stage: StageSpec, planned: StagePlan, subject: Callable[[], Subject]
) -> str:
    recipe, spec = report.recipe, report.recipe.speed.prefix_cache
    if planned.trainable_size == planned.layout.size:
        return ""
    if spec is None:
        return "prefix cache: disabled (set in the recipe)"
    views, epochs = _views(recipe, spec, stage, planned)
    if reason := cache_objection(recipe, stage, planned) or not_worth_caching(views, epochs):
        return f"prefix cache: disabled ({reason})"
    try:
        skeleton, example = subject()
    except InputError:
        return ""  # the processor determines the form of an example
    found = estimate_cache_size(
        apply_pruned_shapes(skeleton, recipe.stages[: index + 1]), planned.trainable, example
    )
    if found.reason:
        return f"prefix cache: disabled ({found.reason})"
    return _forecast(found, views, report.examples)


def _subject(report: PlanReport) -> Subject:
    """Return the model without weights, and the inputs of one example."""
    recipe, model = report.recipe, report.recipe.model
    modality, configs = TASKS[recipe.kind].modality, copy.deepcopy(report.configs)
    processor = load_processor(
        model.path, modality, revision=model.revision, trust_remote_code=report.trust_remote_code
    )
    for config in configs.values():
        built = partial(build_skeleton, config, TASKS[recipe.kind])
        modality.configure(processor, config, recipe.data, built)
    skeleton = build_joint_skeleton(recipe, configs)
    add_recipe_adapter(skeleton, recipe)
    return skeleton, modality.dummy(processor)


def _forecast(found: CacheEstimate, views: int, examples: int | None) -> str:
    size = " and ".join(
        f"{number:,} bytes per {what}"
        for number, what in ((found.example_bytes, "example"), (found.token_bytes, "token"))
        if number
    )
    if examples is not None and not found.token_bytes:
        size = f"{views * examples * found.example_bytes:,} bytes"
    versions = f"{views} {'version' if views == 1 else 'versions'} of each example"
    return f"prefix cache: up to {found.boundary}, if that saves time; {versions}, {size}"


def _views(
    recipe: Recipe, spec: PrefixCacheSpec, stage: StageSpec, planned: StagePlan
) -> tuple[int, float | None]:
    """Return the number of cached versions, and the epochs in which caching must pay off; None if it always applies."""
    epochs, augmented = planned.epochs or 1.0, _is_augmented(recipe)
    if fitted_by(stage):
        views = spec.views if isinstance(spec.views, int) else FITTED_VIEWS
        return views if augmented else 1, None
    views = choose_views(epochs, augmented=augmented)
    if isinstance(spec.views, int):
        return spec.views if augmented else views, None
    only_head = all(group.layers == "head" for group in planned.groups)
    # The baseline reads the features of unaugmented examples: one more pass.
    return views, epochs + (only_head and not augmented and recipe.evaluation.linear_probe is not None)


def estimate_seconds(
    model: PreTrainedModel, stages: Sequence[StagePlan], recipe: Recipe, inputs: Inputs
) -> tuple[float, ...]:
    """Return an upper bound of each stage's training time on this machine, in seconds.

    A few steps are timed on a few examples, in fp32 and without any cache; evaluation is not included. The weights of
    the model do not change, but the frozen parameters do.

    Args:
        model: Pretrained model with its new head.
        stages: Plan of each stage.
        recipe: Recipe with its stages expanded.
        inputs: Examples as model inputs.
    """
    count = min(TIMED_EXAMPLES, len(inputs.train))
    begun = perf_counter()
    batch = inputs.collate([inputs.train[index] for index in range(count)])
    preparation = (perf_counter() - begun) / count
    seconds = []
    for stage, planned in zip(recipe.stages, stages, strict=True):
        fits = bool(fitted_by(stage))
        freeze_all_but(model, planned.trainable)
        with benchmark_steps(model, batch, _any_loss, planned.trainable, forward_only=fits) as bench:
            bench.step(ExecutionMode())  # the first use of each kernel is slower
            step = min(bench.step(ExecutionMode()) for _ in range(TIMED_STEPS))
        unfreeze_modes(model)
        examples = (planned.epochs or 0.0) * len(inputs.train)
        if planned.steps is not None and not fits:
            examples = float(planned.steps * stage.batch_size * stage.accumulation)
        seconds.append((examples or len(inputs.train)) * (step / count + preparation))
    return tuple(seconds)


def _any_loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return a loss of the logits whose gradient costs about the same as that of any other loss."""
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    return logits.float().square().mean()


def _is_augmented(recipe: Recipe) -> bool:
    return TASKS[recipe.kind].modality.varies(recipe.data.augment)


def decode_images(inputs: Inputs, prepared: PreparedRun, settings: Sequence[CacheSettings | None]) -> Inputs:
    """Return the examples with images that are decoded only once, where the recipe asks for it and it is faster.

    Args:
        inputs: Examples as model inputs.
        prepared: Checked run.
        settings: Cache settings of each stage.
    """
    speed = prepared.recipe.speed
    if speed.decode_once is False or not prepared.task.modality.opens_files:
        return inputs
    train = validation = 0
    for planned, each in zip(prepared.plan.stages, settings, strict=True):
        passes = ceil(planned.epochs or 1.0)
        if each is None or each.objection or planned.trainable_size == planned.layout.size:
            train, validation = train + passes, validation + passes
        else:
            train, validation = train + each.views, validation + 1
    limit = (speed.prefix_cache or PrefixCacheSpec()).size_limit
    size = 0

    def decode(examples: Inputs, source: str) -> Inputs:
        nonlocal size
        made, report = decode_once(
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
        return made

    made = _each_task(inputs, _digest(prepared, None), decode)
    if size:
        logger.info("Decoded %s cached: %s bytes.", prepared.task.modality.plural, f"{size:,}")
    return made


def _each_task(inputs: Inputs, source: str, decode: Callable[[Inputs, str], Inputs]) -> Inputs:
    """Decode the images of each task separately."""
    train, validation = inputs.train, inputs.validation
    if not isinstance(train, MixedExamples):
        return decode(inputs, source)
    decoded = [
        decode(replace(inputs, train=part, validation=None), f"{source}-{own.name}").train
        for part, own in zip(train.parts, train.columns, strict=True)
    ]
    if validation is not None:
        held = [
            decode(replace(inputs, train=(), validation=part), f"{source}-{own.name}").validation
            for part, own in zip(validation.parts, validation.columns, strict=True)
        ]
        validation = validation.over(held)
    return replace(inputs, train=train.over(decoded), validation=validation)


def _digest(prepared: PreparedRun, seed: int | None) -> str:
    """Return a hash of the examples: data, preprocessing, and seed of the augmentation."""
    unseen = {"path", "workers", "on_error", "split"}  # their effect is in the fingerprint
    if not _is_augmented(prepared.recipe):
        unseen |= {"augment"}  # all spellings of no augmentation are the same
    spec: dict[str, Any] = prepared.recipe.data.model_dump(mode="json", exclude=unseen)
    data = prepared.data if prepared.data.pool is None else prepared.data.pool
    source = [data.fingerprint, spec, str(prepared.processor), seed]
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
