"""``TrainingArguments`` of a recipe's stage."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import TrainingArguments

from hf_finetune.distributed import backend, computes_on_cpu
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.schema import RatesSpec, StageSpec
from hf_finetune.training.optimizers import optimizer_name, trainer_schedule

__all__ = ["training_arguments"]

logger = logging.getLogger(__name__)


def training_arguments(
    stage: StageSpec,
    planned: StagePlan,
    way: ExecutionMode,
    *,
    folder: Path,
    evaluates: bool,
    best_metric: str | None,
    greater_is_better: bool,
    evaluation_batch_size: int,
    workers: int,
    seed: int,
    track: Sequence[str],
) -> TrainingArguments:
    """Return the ``TrainingArguments`` of a stage.

    Args:
        stage: Stage of the recipe.
        planned: Plan of the stage: parameter groups, schedules and warmup steps.
        way: Execution mode; its precision and compilation are used.
        folder: Folder of the stage, the Trainer's ``output_dir``.
        evaluates: Whether to evaluate before training and after each epoch: there is a validation split.
        best_metric: Name of the metric that selects the best checkpoint; None keeps the last one.
        greater_is_better: Whether higher values of ``best_metric`` are better.
        evaluation_batch_size: Examples per process and forward pass in evaluations.
        workers: Number of data loader processes.
        seed: Seed of the stage.
        track: Experiment trackers, as in the Trainer's ``report_to``; empty disables tracking.
    """
    # StagedTrainer builds the schedules that the Trainer lacks.
    schedule = trainer_schedule(planned.groups[0].schedule) or {}
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=stage.batch_size,
        per_device_eval_batch_size=evaluation_batch_size,
        gradient_accumulation_steps=stage.accumulation,
        num_train_epochs=stage.epochs or 1,
        max_steps=stage.max_steps or -1,
        learning_rate=stage.lr.head if isinstance(stage.lr, RatesSpec) else stage.lr,
        optim=optimizer_name(stage.optimizer.name),
        **schedule,
        warmup_steps=planned.warmup_steps or 0,
        max_grad_norm=stage.clip or 0.0,
        eval_strategy="epoch" if evaluates else "no",
        eval_on_start=evaluates,
        save_strategy="epoch",
        load_best_model_at_end=best_metric is not None,
        metric_for_best_model=best_metric,
        greater_is_better=greater_is_better if best_metric is not None else None,
        logging_strategy="steps",
        logging_steps=1,  # a mean over several steps would start over at a resume
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        use_cpu=computes_on_cpu(),  # otherwise transformers 5.23 refuses bf16 on the CPU
        bf16=way.precision == "bf16",
        fp16=way.precision == "fp16",
        torch_compile=way.compile,
        dataloader_num_workers=workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=list(track) or "none",
        disable_tqdm=True,
        ddp_backend=backend(),
        log_level_replica="passive",  # the Trainer's default makes all processes but the first more verbose
    )
    if arguments.n_gpu > 1:
        logger.info("Using one of %d GPUs; accelerate launch uses all of them.", arguments.n_gpu)
        # Otherwise the Trainer would split each batch with DataParallel, and count it several times.
        arguments._n_gpu = 1
    return arguments
