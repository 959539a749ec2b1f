"""From a recipe to a saved, evaluated classifier: the one place where the rooms meet."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import EvalPrediction, PreTrainedModel, TrainerCallback

from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.distributed import (
    count_workers,
    detect_lost_process,
    main_process_first,
    start_processes,
    wait_for_all,
)
from hf_finetune.errors import InputError, Problem, collect_problems
from hf_finetune.evaluation.metrics import (
    compute_metrics,
    decide,
    greater_is_better,
    probabilities,
    without_nan,
)
from hf_finetune.evaluation.registry import needs_all_scores
from hf_finetune.evaluation.top_scores import Scores, keep_top, pack_top, reduced, unpack_top
from hf_finetune.methods.class_balance import ClassBalance, build_class_balance
from hf_finetune.methods.distillation import Teacher
from hf_finetune.methods.domain_alignment import AlignmentInputs
from hf_finetune.methods.pruning_masks import PruningMaskCallback
from hf_finetune.methods.regularizers import pretrained_weights
from hf_finetune.models.build import BuiltModel
from hf_finetune.models.compression import compress, is_sparse
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.models.pruning import pruning_masks
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import StagePlan
from hf_finetune.publishing.card import write_card
from hf_finetune.publishing.publish_after_run import publish_run
from hf_finetune.recipe import Recipe, StageSpec
from hf_finetune.recipe.head import OWN
from hf_finetune.recipe.head_fit import fitted_by
from hf_finetune.report.page import write_report
from hf_finetune.runs.caching import cache_settings, choose_pooling, decode_images, estimate_seconds
from hf_finetune.runs.changes import spread_recipe
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.compression import compare_sizes
from hf_finetune.runs.cross_validation import check_folds, cross_validate, recipe_for_folds
from hf_finetune.runs.domain_adaptation import Pretraining, load_alignments, prepare_pretraining, pretrain
from hf_finetune.runs.folder import (
    acquire_lock,
    begin_run,
    check_folder,
    choose_folder,
    resume_run,
    write_manifest,
)
from hf_finetune.runs.forward_check import padding_notes, try_forward
from hf_finetune.runs.prepare import plan as plan_stages
from hf_finetune.runs.prepare import prepare_run
from hf_finetune.runs.prepared import PlanReport, PreparedRun, with_input_notes
from hf_finetune.runs.results import evaluate_run, finish_model, write_data
from hf_finetune.runs.tasks import finish_tasks, mix_of, score_tasks
from hf_finetune.runs.teachers import load_teachers
from hf_finetune.runs.weights import load_stage_weights
from hf_finetune.tasks import Inputs
from hf_finetune.tasks.inputs import prepare_inputs
from hf_finetune.training.head_fit import FITS
from hf_finetune.training.loss import finite_logits
from hf_finetune.training.manifest import Manifest, read_manifest, write_json
from hf_finetune.training.run_lock import RunLock
from hf_finetune.training.stage import stage_folder, train_stage
from hf_finetune.training.stage_inputs import StageData, StageEvaluation, StageExtras
from hf_finetune.training.stage_result import StageResult, result_lines

__all__ = ["RunResult", "plan", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: The run directory.
        metrics: The content of ``metrics.json``.
        primary_metrics: Names of the metrics that the recipe asks for, the leading one first.
        unpublished: Why the model is not published although the recipe wants that.
        publish_later: The command that publishes it, in that case.
    """

    folder: Path
    metrics: dict[str, Any]
    primary_metrics: tuple[str, ...]
    unpublished: tuple[Problem, ...] = ()
    publish_later: str = ""


@dataclass(frozen=True)
class _Start:
    """What a run begins with, every part checked against the others.

    Attributes:
        built: The pretrained model under its new head.
        inputs: The examples as the model takes them.
        teachers: The teacher of each stage, or None.
        alignments: The other domain's inputs for each stage, or None.
        pretraining: What is trained before the first stage, or None.
    """

    built: BuiltModel
    inputs: Inputs
    teachers: list[Teacher | None]
    alignments: list[AlignmentInputs | None]
    pretraining: Pretraining | None


@quiet_libraries()
def plan(recipe: Recipe, *, trust_remote_code: bool = False) -> PlanReport:
    """Plan what each stage of a recipe trains, and check everything that ``run`` checks before it writes.

    Trains nothing and writes nothing. Loads the checkpoint and tries a batch, as ``run`` does. For data on the Hub that
    cannot be reached, the number of labels and steps stays unknown and the data is not checked.

    Args:
        recipe: What would be run.
        trust_remote_code: Whether code of checkpoints and metrics may run; a recipe can only declare the need.

    Returns:
        The plan.

    Raises:
        InputError: If ``run`` would refuse the recipe.
    """
    report = plan_stages(recipe, trust_remote_code=trust_remote_code)
    if report.prepared is None:
        return report
    start = _prepare(report.prepared, None, start_processes())
    seconds = estimate_seconds(start.built.model, report.plan.stages, report.recipe, start.inputs)
    # what was noted of the data stands first: only now is known what becomes of the examples
    cut = with_input_notes(report.prepared, start.inputs).data.notes[len(report.prepared.data.notes) :]
    return replace(report, notes=(*report.notes, *cut, *start.built.notes), seconds=seconds)


def _prepare(prepared: PreparedRun, before: Manifest | None, state: PartialState) -> _Start:
    """Load what a run begins with and try it.

    Args:
        prepared: The recipe and what was made of it.
        before: What the run was, if it is resumed.
        state: The processes.

    Raises:
        InputError: With the problems of all parts together.
    """
    recipe, problems = prepared.recipe, list[Problem]()
    teachers, alignments, pretraining = list[Teacher | None](), list[AlignmentInputs | None](), None
    built = load_pretrained(prepared)
    inputs = prepare_inputs(prepared.task, prepared.data, prepared.processor, recipe.data, recipe.seed)
    with collect_problems(problems):
        try_forward(built.model, prepared, inputs)
        built = replace(built, notes=(*built.notes, *padding_notes(built.model, prepared)))
    with collect_problems(problems):
        teachers = load_teachers(prepared)
    with collect_problems(problems):
        alignments = load_alignments(prepared)
    with collect_problems(problems):
        pretraining = prepare_pretraining(prepared, built.model, before, state)
    with collect_problems(problems), main_process_first(state):
        check_folds(recipe)
    if problems:
        raise InputError(problems)
    return _Start(built, inputs, teachers, alignments, pretraining)


def run(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    progress: Callable[[int], None] | None = None,
    trust_remote_code: bool = False,
) -> RunResult:
    """Fine-tune stage by stage, evaluate on the test split, and save.

    Under ``accelerate launch`` every process calls this; the first one writes.

    Args:
        recipe: What to do.
        output_dir: The run directory; it must be empty or not exist, unless the run is resumed. None makes
            ``runs/TASK-DATE``.
        resume: Go on with the run in ``output_dir`` at the last checkpoint of the stage it was in.
        allow_changes: Resume with a recipe, data or checkpoint that has changed; the manifest says what has.
        callbacks: Further callbacks for the Trainer of each stage.
        progress: Called with the number of test examples done.
        trust_remote_code: Whether code of checkpoints and metrics may run; a recipe can only declare the need.
    Raises:
        InputError: If recipe, data, checkpoint or run directory cannot be used; nothing is written then.
        DivergedError: If a stage's loss is no longer a number.
        LostProcessError: If another process of the launch is gone.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.
    """
    state = start_processes()
    with detect_lost_process(state), quiet_libraries():
        result = _run(
            *(recipe, output_dir, resume, allow_changes, callbacks, progress, state),
            trust_remote_code=trust_remote_code,
        )
    if recipe.publish is None or not state.is_main_process:
        return result
    problems, command = publish_run(recipe.publish, result.folder)
    return replace(result, unpublished=problems, publish_later=command)


def _run(
    recipe: Recipe,
    output_dir: str | Path | None,
    resume: bool,
    allow_changes: bool,
    callbacks: Sequence[TrainerCallback],
    progress: Callable[[int], None] | None,
    state: PartialState,
    *,
    trust_remote_code: bool = False,
) -> RunResult:
    started = perf_counter()
    if allow_changes and not resume:
        raise InputError(Problem("--allow-changes", "must come with --resume"))
    folder = choose_folder(output_dir, recipe, resume, state)
    lock = RunLock(folder)
    try:
        return _run_locked(
            *(recipe, folder, lock, resume, allow_changes, callbacks, progress, state, started),
            trust_remote_code=trust_remote_code,
        )
    finally:
        lock.release()


def _run_locked(
    recipe: Recipe,
    folder: Path,
    lock: RunLock,
    resume: bool,
    allow_changes: bool,
    callbacks: Sequence[TrainerCallback],
    progress: Callable[[int], None] | None,
    state: PartialState,
    started: float,
    *,
    trust_remote_code: bool,
) -> RunResult:
    """Run as ``run`` does; the caller releases the lock."""
    if resume and folder.is_dir():
        acquire_lock(lock, state)
    before = read_manifest(folder / "manifest.json") if resume else None
    if before is None:
        check_folder(folder)
    spread = partial(spread_recipe, manifest=before, processes=state.num_processes) if before else None
    prepared = prepare_run(recipe, state, spread, trust_remote_code=trust_remote_code)
    prepared = choose_pooling(prepared, recipe.strategy.name if recipe.strategy else None, before, state)
    recipe = prepared.recipe
    start = _prepare(prepared, before, state)
    built, inputs = start.built, start.inputs
    prepared = with_input_notes(prepared, inputs)
    settings = [
        cache_settings(prepared, stage, planned)
        for stage, planned in zip(recipe.stages, prepared.plan.stages, strict=True)
    ]
    if before is None:
        acquire_lock(lock, state, make=folder)
        manifest = begin_run(folder, prepared, state)
    else:
        manifest = resume_run(folder, prepared, before, state, allow_changes=allow_changes)
    for note in (*prepared.notes, *built.notes, *filter(None, [prepared.plan.layout.note])):
        logger.info(note)
    inputs = decode_images(inputs, prepared, settings)
    model, pretrained = built.model, pretrained_weights(built.model, recipe.stages, prepared.plan)
    manifest = pretrain(start.pretraining, prepared, manifest, folder, state, callbacks)
    teachers, alignments = start.teachers, start.alignments
    del start  # the model of its pretraining need not stay in memory
    for index, stage in enumerate(recipe.stages):
        if manifest.stages[index].state == "done":
            logger.info("Stage %s is done already.", stage.name)
            continue
        if index > 0 or prepared.pretrains:
            model = load_stage_weights(prepared, folder, index)
        model = compress(model, stage)
        beside = StageExtras(
            teachers[index], alignments[index], pretrained, _balance(prepared, stage), mix_of(prepared, stage)
        )
        cache = settings[index]
        manifest = _run_stage(
            model, index, prepared, inputs, cache, beside, manifest, folder, state, callbacks
        )
    metrics: dict[str, Any] = {}
    if state.is_main_process:
        model = load_stage_weights(
            prepared, folder, len(recipe.stages)
        )  # that of the last stage may be divided, or compiled
        metrics = _results(model, prepared, inputs, manifest, folder, state, progress)
    wait_for_all(state)
    if recipe.evaluation.folds is not None:

        def train(fold: Recipe, place: Path, resumes: bool) -> RunResult:
            return _run(
                *(fold, place, resumes, allow_changes, callbacks, None, state),
                trust_remote_code=trust_remote_code,
            )

        metrics["cross_validation"] = cross_validate(recipe_for_folds(prepared), folder, train, state)
    if state.is_main_process:
        metrics["wall_seconds"] = round(perf_counter() - started, 3)
        write_json(folder / "metrics.json", metrics)
        if prepared.saves == "adapter":
            shutil.rmtree(folder / "model")
        write_manifest(replace(manifest, state="done"), folder, state)
        write_report(folder)
        if prepared.saves != "adapter" and not prepared.parts:
            write_card(folder)
    wait_for_all(state)
    return RunResult(folder, metrics, prepared.primary_metrics)


def _balance(prepared: PreparedRun, stage: StageSpec) -> ClassBalance | None:
    """Say how scarce classes get their share; of several tasks each has its own in its loss."""
    data = prepared.data
    if prepared.parts:
        return None
    return build_class_balance(stage.balance, data.target, data.train["label"], data.label_names)


def _stage_data(prepared: PreparedRun, inputs: Inputs, state: PartialState) -> StageData:
    return StageData(
        prepared.data.target,
        inputs.train,
        inputs.collate,
        inputs.validation,
        inputs.lengths,
        count_workers(prepared.recipe.data.workers, state),
        prepared.data.train_groups,
    )


def _judging(prepared: PreparedRun, best: str | None) -> StageEvaluation:
    return StageEvaluation(
        prepared.recipe.evaluation.batch_size,
        score_tasks(prepared) if prepared.parts else _trainer_metrics(prepared),
        best,
        best is not None and _greater_is_better(best),
        _keep_top if _reduces(prepared) else None,
    )


def _run_stage(
    model: PreTrainedModel,
    index: int,
    prepared: PreparedRun,
    inputs: Inputs,
    cache: CacheSettings | None,
    beside: StageExtras,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
) -> Manifest:
    """Train one stage, or go on with it, and write down how far it is."""
    recipe, stage, planned = prepared.recipe, prepared.recipe.stages[index], prepared.plan.stages[index]
    resumes = manifest.stages[index].state == "running"
    manifest = manifest.with_stage(index, state="running")
    write_manifest(manifest, folder, state)
    logger.info(_first_line(index, stage, planned, prepared, resumes))
    best = _best_metric(stage, prepared)
    carries = stage.carry_optimizer
    following = recipe.stages[index + 1 : index + 2]
    zeros = [PruningMaskCallback(pruning_masks(model))] if is_sparse(recipe.stages[: index + 1]) else []
    begun = perf_counter()
    try:
        result = train_stage(
            model,
            stage,
            planned,
            _stage_data(prepared, inputs, state),
            folder=stage_folder(folder, index, stage.name),
            judging=_judging(prepared, best),
            beside=beside,
            speed=recipe.speed,
            seed=(recipe.seed + index) % 2**32,
            resume=resumes,
            callbacks=[*callbacks, *zeros],
            carry_from=stage_folder(folder, index - 1, recipe.stages[index - 1].name) if carries else None,
            keep_optimizer=any(other.carry_optimizer for other in following),
            cache=cache,
            track=recipe.track,
        )
    finally:
        spent = manifest.stages[index].seconds + perf_counter() - begun
        manifest = manifest.with_stage(index, seconds=round(spent, 3))
        write_manifest(manifest, folder, state)
    manifest = manifest.with_stage(index, state="done", result=_stage_entry(planned, result, spent, prepared))
    write_manifest(manifest, folder, state)
    leading = best or prepared.primary_metrics[0]
    lines = result_lines(
        stage.name, result, best, leading=leading, greater_is_better=_greater_is_better(leading)
    )
    for line in lines:
        logger.info(line)
    return manifest


def _results(
    model: PreTrainedModel,
    prepared: PreparedRun,
    inputs: Inputs,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Save the model, evaluate it as others will load it, write ``predictions.parquet``, and give the metrics."""
    if prepared.parts:
        return finish_tasks(model, prepared, manifest, folder, state.device, progress)
    stages = [record.result for record in manifest.stages]
    metrics: dict[str, Any] = {"task": prepared.recipe.task, "wall_seconds": 0.0, "stages": stages}
    if manifest.pretraining:
        metrics["pretraining"] = manifest.pretraining["result"]
    write_data(prepared, folder)
    metrics |= finish_model(model, prepared, folder)
    ways = [ExecutionMode(**stage["speed"]) for stage in stages]
    metrics |= evaluate_run(prepared, inputs, folder, ways, state.device, progress)
    metrics |= compare_sizes(prepared, inputs, folder, metrics["test"])
    return metrics


def _best_metric(stage: StageSpec, prepared: PreparedRun) -> str | None:
    if stage.best is None or prepared.data.validation is None:
        return None
    return stage.best.metric or prepared.primary_metrics[0]


def _trainer_metrics(prepared: PreparedRun) -> Callable[[EvalPrediction], dict[str, float]]:
    target, settings, names = prepared.data.target, prepared.metric_settings, _stage_metrics(prepared)
    reduces, classes = _reduces(prepared), len(prepared.data.label_names)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = finite_logits(prediction)
        scores: Scores = unpack_top(logits, classes) if reduces else probabilities(logits, target)
        return compute_metrics(names, target, scores, np.asarray(prediction.label_ids), settings=settings)

    return compute


def _stage_metrics(prepared: PreparedRun) -> list[str]:
    """Return the metrics that stages compute besides the loss."""
    wanted = [
        *prepared.primary_metrics,
        *(s.best.metric for s in prepared.recipe.stages if s.best and s.best.metric),
    ]
    return [name for name in dict.fromkeys(wanted) if name != "loss"]


def _reduces(prepared: PreparedRun) -> bool:
    """Return whether stages keep the highest probabilities of validation examples in place of all logits."""
    data = prepared.data
    return (
        not prepared.parts
        and data.target == "single_label"
        and data.validation is not None
        and reduced(len(data.validation), len(data.label_names))
        and not any(needs_all_scores(name, data.target) for name in _stage_metrics(prepared))
    )


def _keep_top(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Reduce the logits [batch, classes] of single-label examples to what the metrics need of them."""
    scores, indices = probabilities(logits.float().cpu().numpy(), "single_label"), labels.cpu().numpy()
    kept = keep_top(scores, indices, decide(scores, "single_label"))
    return torch.as_tensor(pack_top(kept), device=logits.device)


def _first_line(
    index: int, stage: StageSpec, planned: StagePlan, prepared: PreparedRun, resumes: bool
) -> str:
    rates = ", ".join(dict.fromkeys(f"{group.layers} {group.lr:.2g}" for group in planned.groups))
    share = f"{planned.trainable_size:,} of {planned.layout.size:,} parameters"
    verb = "goes on" if resumes else "begins"
    if how := fitted_by(stage):
        verb = "begins anew" if resumes else "begins"
        return (
            f"Stage {index + 1} of {len(prepared.recipe.stages)}, {stage.name}, {verb}: {share}, {FITS[how]}."
        )
    return f"Stage {index + 1} of {len(prepared.recipe.stages)}, {stage.name}, {verb}: {share}, lr {rates}."


def _pooling(prepared: PreparedRun) -> dict[str, Any]:
    """Return how a fitted head reads texts, and the loss of each pooling that was compared; empty if none was."""
    if prepared.pooling is None:
        return {}
    return {"pool": prepared.recipe.model.head.pool or OWN, "pooling": dict(prepared.pooling.losses)}


def _greater_is_better(metric: str) -> bool:
    """Return whether a better model has the greater value of a validation metric; of several tasks ``TASK/METRIC``."""
    return metric != "loss" and greater_is_better(metric.rpartition("/")[2])


def _stage_entry(
    planned: StagePlan, result: StageResult, seconds: float, prepared: PreparedRun
) -> dict[str, Any]:
    return {
        "name": planned.name,
        "epochs": result.epochs,
        "steps": result.steps,
        "best_step": result.best_step,
        "train_seconds": round(seconds, 3),
        "trainable_parameters": planned.trainable_size,
        "total_parameters": planned.layout.size,
        "speed": asdict(result.way),
        "prefix_cache": asdict(result.cache),
        **({} if result.averaged is None else {"averaged": result.averaged}),
        "validation": without_nan(result.validation),
        "start": without_nan(result.start),
        **({"trained": without_nan(result.trained)} if result.trained else {}),
        **({"fit": {**result.fit, **_pooling(prepared)}} if result.fit else {}),
    }
