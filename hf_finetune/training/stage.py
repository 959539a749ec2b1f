"""Train one stage: a new Trainer on a model whose parameters are frozen except those of the plan."""

import copy
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils.constants import FSDP_MODEL_NAME
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from hf_finetune.cache.replay import PrefixRunner
from hf_finetune.data.distributed_sampling import SyncBuffersCallback
from hf_finetune.distributed import broadcast_from_main, detect_lost_process, main_process_first
from hf_finetune.errors import InputError, Problem
from hf_finetune.methods.base import Loss, Method
from hf_finetune.methods.carried_optimizer import OPTIMIZER_FILE, optimizer_state, save_state
from hf_finetune.methods.prefix_replay import PrefixReplay
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import PlannedStage
from hf_finetune.planning.time_limit import StageTimes
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.tasks.seeded_augmentation import cycle
from hf_finetune.training.arguments import training_arguments
from hf_finetune.training.callbacks import EpochCallback, InterruptCallback, LogCallback
from hf_finetune.training.checkpoints import last_checkpoint, remove_old_checkpoints, unsafe_checkpoint
from hf_finetune.training.execution import StageExecution, plan_execution
from hf_finetune.training.freezing import freeze_all_but, release_eval_mode
from hf_finetune.training.head_fit import fit_head
from hf_finetune.training.rehearsal import first_steps, rehearse, sample_validation
from hf_finetune.training.resume import MovedCheckpoint, ResumableEarlyStopping
from hf_finetune.training.sequence_validation import label_loss, with_sequence_loss
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_limit import DeadlineCallback, StageLimit
from hf_finetune.training.stage_result import StageResult, metrics_of, stage_result
from hf_finetune.training.stage_weights import WEIGHTS, save_weights
from hf_finetune.training.trainer import SingleStageTrainer
from hf_finetune.training.validation_loss import add_loss_metric, reduce_before_metrics, reduce_logits

__all__ = ["evaluate_weights", "train_stage"]

logger = logging.getLogger(__name__)


@keep_freed_memory()
def train_stage(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    *,
    output: StageOutput,
    evaluation: StageEvaluation,
    execution: ExecutionSettings,
    methods: Sequence[Method] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> StageResult:
    """Train a stage and write its best weights to its folder, see ``save_weights``.

    Args:
        model: Model with the weights of the previous stage. It is changed in place.
        stage: Stage with its plan and its seed.
        data: Examples of the stage.
        output: Folder of the stage, and options of resuming and saving.
        evaluation: Evaluation settings, with the metric that selects the best checkpoint.
        execution: Settings of execution mode, prefix cache and time limit.
        methods: Methods of the stage, in the order of their hooks.
        callbacks: Additional callbacks.

    Returns:
        Steps, metrics of the kept weights, execution mode and cache report.

    Raises:
        InputError: If the stage's checkpoints were written with FSDP and it is resumed without, or the reverse; or if
            a checkpoint contains objects that are not safe to unpickle.
        DivergedError: If the loss, the gradient norm or the logits are not finite.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.
    """
    freeze_all_but(model, stage.plan.trainable)
    loss = _loss(stage.spec, data, methods)
    execution = _restrict_compilation(execution, methods)
    stage_execution = plan_execution(model, stage, data, loss, execution, output)
    data = _use_cached_outputs(stage_execution, data)
    if solver_of(stage.spec):
        evaluation = _with_loss(evaluation, loss, data)
        return _fit(model, stage, data, evaluation, stage_execution, output.folder, methods)
    output.folder.mkdir(parents=True, exist_ok=True)
    work = _StageWork(data, evaluation, stage_execution, execution.arguments)
    limit = execution.limit
    if limit is not None:
        stage = _lay_out(limit, model, stage, work, output)
        callbacks = [*callbacks, DeadlineCallback(limit)]
    result = _train_by_steps(model, stage, work, output, methods, callbacks, limit)
    return result if limit is None else replace(result, limit=limit.result())


def evaluate_weights(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    evaluation: StageEvaluation,
    mode: ExecutionMode,
    output: StageOutput,
    methods: Sequence[Method] = (),
) -> dict[str, float]:
    """Return the validation metrics of a model as a stage computes them; empty without a validation split.

    Args:
        model: Model with the weights to evaluate.
        stage: Stage with its plan.
        data: Examples of the stage.
        evaluation: Evaluation settings.
        mode: Execution mode.
        output: Folder of the stage.
        methods: Methods of the stage, on which the loss depends.
    """
    if data.validation is None:
        return {}
    loss = _loss(stage.spec, data, methods)
    evaluation = _with_loss(evaluation, loss, data)
    mode, output = replace(mode, compile=False), replace(output, track=())
    arguments = training_arguments(stage, mode, data, evaluation, output)
    trainer = _build_trainer(model, stage, data, evaluation, arguments, loss, (), ())
    return metrics_of(trainer.evaluate())


@dataclass(frozen=True)
class _StageWork:
    """Examples, evaluation and execution of a stage, which are the same for its rehearsal."""

    data: StageData
    evaluation: StageEvaluation
    execution: StageExecution
    arguments: TrainingArguments | None


def _lay_out(
    limit: StageLimit, model: PreTrainedModel, stage: PlannedStage, work: _StageWork, output: StageOutput
) -> PlannedStage:
    """Return the stage with the steps that fit in its time, which a rehearsal on a copy of the model measures."""
    data, evaluation = sample_validation(work.data, work.evaluation)
    sample = replace(work, data=data, evaluation=evaluation)

    def train(folder: Path, timer: TrainerCallback) -> None:
        rehearsed = copy.deepcopy(model)
        methods = limit.build_methods(rehearsed)
        _train_by_steps(rehearsed, first_steps(stage), sample, StageOutput(folder), methods, [timer])

    def measure(seconds: float) -> StageTimes:
        return rehearse(
            train, output.folder, seconds, _size(work.data.validation) / (_size(data.validation) or 1)
        )

    has_steps = output.resume and broadcast_from_main(
        PartialState(), lambda: last_checkpoint(output.folder) is not None
    )
    return limit.lay_out(stage, _size(work.data.train), output.folder, None if has_steps else measure)


def _size(examples: Any) -> int:
    return 0 if examples is None else len(examples)


def _train_by_steps(
    model: PreTrainedModel,
    stage: PlannedStage,
    work: _StageWork,
    output: StageOutput,
    methods: Sequence[Method],
    callbacks: Sequence[TrainerCallback],
    limit: StageLimit | None = None,
) -> StageResult:
    """Train a stage, or resume it, in the chosen execution mode; write its weights and return its result."""
    data, stage_execution, spec, folder = work.data, work.execution, stage.spec, output.folder
    loss = _loss(spec, data, methods)
    evaluation = _with_loss(work.evaluation, loss, data)
    if stage_execution.mode.compile:
        # torch 2.15 recompiles whenever the trained parameters change, and after the eighth time (counted over all
        # models of a class) runs uncompiled, with only a warning.
        torch.compiler.reset()
    if stage_execution.cache is not None:
        runner = stage_execution.cache.runner
        methods = [*methods, PrefixReplay(PrefixRunner(model, runner.cut, runner.placeholder))]
    for method in methods:
        train, collate = method.prepare(model, data.train, data.collate, stage.seed)
        data = replace(data, train=train, collate=collate)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = training_arguments(stage, stage_execution.mode, data, evaluation, output, work.arguments)
    stopping = _early_stopping(spec, evaluation.best_metric)
    interrupt = InterruptCallback()
    callbacks = [
        *filter(None, [stopping]),
        LogCallback(folder / "log.jsonl", [group.layers for group in stage.plan.groups], spec.name),
        EpochCallback(data.train, stage.first_epoch),
        *callbacks,
        SyncBuffersCallback(),
        interrupt,
    ]
    trainer = _build_trainer(model, stage, data, evaluation, arguments, loss, methods, callbacks)
    checkpoint = _restore_for_resume(trainer, folder, stopping, limit) if output.resume else None
    _train(trainer, checkpoint, interrupt, folder)
    release_eval_mode(model)
    if output.keep_optimizer:
        _keep_optimizer(trainer, folder, evaluation.best_metric)
    _write_kept_weights(trainer, model, folder)
    results = {name: value for method in methods for name, value in method.result(trainer.state).items()}
    return stage_result(trainer.state, evaluation, stage_execution, results.get("averaged"))


def _loss(spec: StageSpec, data: StageData, methods: Sequence[Method]) -> Loss:
    """Return the loss of the labels: that of the first method that has one, or else that of the target."""
    replacements = (method.base_loss(data.target, spec.label_smoothing) for method in methods)
    replacement = next(filter(None, replacements), None)
    return replacement or label_loss(data.target, data.sequences, spec.label_smoothing)


def _restrict_compilation(execution: ExecutionSettings, methods: Sequence[Method]) -> ExecutionSettings:
    """Return the settings, without the choice to compile the model if a method does not support that."""
    if execution.speed.compile != "auto" or all(method.compiles for method in methods):
        return execution
    return replace(execution, speed=execution.speed.model_copy(update={"compile": False}))


def _with_loss(evaluation: StageEvaluation, loss: Loss, data: StageData) -> StageEvaluation:
    """Return the evaluation settings with the exact loss over the validation split as an additional metric."""
    if data.sequences is not None:
        return replace(evaluation, compute_metrics=with_sequence_loss(evaluation.compute_metrics))
    reduce = reduce_logits(evaluation.reduce, loss)
    compute = add_loss_metric(evaluation.compute_metrics, loss, reduced=reduce is not None)
    return replace(evaluation, compute_metrics=compute, reduce=reduce)


def _use_cached_outputs(stage_execution: StageExecution, data: StageData) -> StageData:
    """Return the data with examples replaced by their cached prefix outputs, if the prefix is cached."""
    if stage_execution.cache is not None:
        cache = stage_execution.cache
        return replace(data, train=cache.train, validation=cache.validation, collate=cache.collate)
    if stage_execution.views is not None:
        # The stage was started with a prefix cache that cannot be used now: cycle through the same views.
        return replace(data, train=cycle(data.train, stage_execution.views))
    return data


def _build_trainer(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    evaluation: StageEvaluation,
    arguments: TrainingArguments,
    loss: Loss,
    methods: Sequence[Method],
    callbacks: Sequence[TrainerCallback],
) -> SingleStageTrainer:
    trainer = SingleStageTrainer(
        groups=stage.plan.groups,
        optimizer_args=stage.spec.optimizer.args,
        target=data.target,
        lengths=data.lengths,
        methods=methods,
        model=model,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=data.collate,
        compute_loss_func=loss,
        compute_metrics=evaluation.compute_metrics,
        preprocess_logits_for_metrics=evaluation.reduce,
        callbacks=[*callbacks],
    )
    trainer.sequences = data.sequences
    trainer.remove_callback(PrinterCallback)
    return trainer


def _train(
    trainer: SingleStageTrainer, checkpoint: Path | None, interrupt: InterruptCallback, folder: Path
) -> None:
    """Train from a checkpoint, or from the start without one, while the methods are active."""
    try:
        with ExitStack() as stack, detect_lost_process(PartialState()):
            for method in trainer.methods:
                stack.enter_context(method.active())
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except UnpicklingError as error:  # the Trainer reads a checkpoint's files with weights_only=True
        raise InputError(unsafe_checkpoint(checkpoint or folder)) from error
    finally:
        interrupt.restore()
    interrupt.raise_if_interrupted(trainer.args)


def _write_kept_weights(trainer: SingleStageTrainer, model: PreTrainedModel, folder: Path) -> None:
    """Write the final weights of the stage from the main process."""
    weights = trainer.gather_full_state_dict()
    if trainer.is_world_process_zero():
        save_weights(model, folder / WEIGHTS, weights)
    trainer.accelerator.wait_for_everyone()


def _fit(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    evaluation: StageEvaluation,
    stage_execution: StageExecution,
    folder: Path,
    methods: Sequence[Method],
) -> StageResult:
    """Fit the head without optimizer steps, and write the weights as ``train_stage`` does."""
    compute = reduce_before_metrics(evaluation.compute_metrics, evaluation.reduce)
    evaluation = replace(evaluation, compute_metrics=compute)
    options = {name: value for method in methods for name, value in method.fit_options().items()}
    fitted = fit_head(model, stage, data, evaluation, stage_execution, options)
    release_eval_mode(model)
    if PartialState().is_main_process:
        save_weights(model, folder / WEIGHTS)
    PartialState().wait_for_everyone()
    epochs = float(fitted.views)  # one pass over the data per view
    restored = fitted.kept_initial_head
    return StageResult(
        epochs=epochs,
        steps=0,
        best_step=0 if restored else None,
        validation=fitted.start if restored else fitted.validation,
        mode=stage_execution.mode,
        cache=stage_execution.report,
        fit=fitted.metadata,
        start=fitted.start,
        trained={**fitted.validation, "step": 0} if restored else {},
    )


def _early_stopping(spec: StageSpec, best_metric: str | None) -> ResumableEarlyStopping | None:
    """Return the callback; None without early stopping or without a validation metric."""
    if spec.early_stopping is None or best_metric is None:
        return None
    return ResumableEarlyStopping(spec.early_stopping.patience, spec.early_stopping.threshold)


def _restore_for_resume(
    trainer: SingleStageTrainer,
    folder: Path,
    stopping: ResumableEarlyStopping | None,
    limit: StageLimit | None,
) -> Path | None:
    """Return the checkpoint to resume from, or None, and restore the state that the Trainer does not restore."""
    with main_process_first(PartialState()):
        checkpoint = last_checkpoint(folder)
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else None
        if state is not None:
            remove_old_checkpoints(
                folder, state.best_global_step
            )  # a process killed after sealing leaves older checkpoints
    if checkpoint is None or state is None:
        return None
    _check_sharding(checkpoint, trainer.is_fsdp_enabled)
    trainer.add_callback(MovedCheckpoint(folder))
    for method in trainer.methods:
        method.load(checkpoint)
    had_stopped = stopping is not None and stopping.had_stopped(state, trainer.args)
    if had_stopped or (limit is not None and limit.ends_at(state.global_step)):
        # Early stopping had already ended this stage, or its time is over: only restore the best checkpoint.
        trainer.args.max_steps = state.global_step
    return checkpoint


def _keep_optimizer(trainer: SingleStageTrainer, folder: Path, best_metric: str | None) -> None:
    """Write the optimizer state that belongs to the kept weights: that of the best checkpoint, or the last."""
    best = trainer.state.best_global_step if best_metric is not None else None
    if best is not None and best != trainer.state.global_step:
        # the Trainer restores only the weights of the best checkpoint
        trainer._load_optimizer_and_scheduler(str(folder / f"checkpoint-{best}"))
    if trainer.is_world_process_zero():
        save_state(optimizer_state(trainer.optimizer, trainer.planned_groups), folder / OPTIMIZER_FILE)


def _check_sharding(checkpoint: Path, uses_fsdp: bool) -> None:
    """Raise ``InputError`` if a checkpoint was written with FSDP and is resumed without it, or the reverse.

    The Trainer can load only the kind that it writes.
    """
    if (checkpoint / f"{FSDP_MODEL_NAME}.bin").exists() != uses_fsdp:
        required = "without" if uses_fsdp else "with"
        rule = f"must be used {required} FSDP, as the stage's checkpoints were written {required} it"
        raise InputError(Problem("--resume", rule, "", f"Launch {required} --use_fsdp, or start a new run."))
