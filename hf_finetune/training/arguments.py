"""What a recipe's stage is in the words of the Trainer."""

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
    """Write a stage as arguments of the Trainer.

    Args:
        stage: The stage of the recipe.
        planned: What it trains.
        way: Precision and compilation.
        folder: The stage's folder.
        evaluates: Whether there is a validation split.
        best_metric: Name of the metric that chooses the checkpoint; None keeps the last.
        greater_is_better: Which way that metric is better.
        evaluation_batch_size: Examples per process and forward pass.
        workers: Data loader processes.
        seed: Of the stage.
        track: Names of what shows losses and metrics live, as the Trainer's ``report_to``.
    """
    # Of a schedule that the Trainer lacks, StagedTrainer makes one.
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
        logging_steps=1,  # a mean over several steps would begin anew at a resume
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        use_cpu=computes_on_cpu(),  # without it transformers 5.23 refuses bf16 there
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
        log_level_replica="passive",  # by default the Trainer makes every process but the first talkative
    )
    if arguments.n_gpu > 1:
        logger.info("One of %d GPUs is used: accelerate launch uses all of them.", arguments.n_gpu)
        arguments._n_gpu = (
            1  # else the Trainer would divide each batch by DataParallel, and count it several times
        )
    return arguments
