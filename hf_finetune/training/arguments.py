"""``TrainingArguments`` of a recipe's stage."""

import logging
from dataclasses import replace
from functools import partial

import torch
from transformers import TrainingArguments

from hf_finetune.distributed import computes_on_cpu, deepspeed_cpu_backend
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import PlannedStage
from hf_finetune.recipe.stage_fields import RatesSpec
from hf_finetune.training.optimizers import optimizer_name, trainer_schedule
from hf_finetune.training.stage_inputs import StageData, StageEvaluation, StageOutput

__all__ = ["training_arguments"]

logger = logging.getLogger(__name__)


def training_arguments(
    stage: PlannedStage,
    mode: ExecutionMode,
    data: StageData,
    evaluation: StageEvaluation,
    output: StageOutput,
    base: TrainingArguments | None = None,
) -> TrainingArguments:
    """Return the ``TrainingArguments`` of a stage.

    Args:
        stage: Stage with its plan: parameter groups, schedules and warmup steps.
        mode: Execution mode; its precision and compilation are used.
        data: Examples. With a validation split the model is evaluated before training and after each epoch.
        evaluation: Evaluation settings, with the metric that selects the best checkpoint.
        output: Folder of the stage, the Trainer's ``output_dir``, and experiment trackers.
        base: User's arguments, which supply the fields that the stage does not set; None uses the defaults of
            transformers.

    Returns:
        The arguments.
    """
    spec, plan, best_metric = stage.spec, stage.plan, evaluation.best_metric
    evaluates = data.validation is not None
    # SingleStageTrainer builds the schedules that the Trainer lacks.
    schedule = trainer_schedule(plan.groups[0].schedule) or {}
    make = TrainingArguments if base is None else partial(replace, base)
    arguments: TrainingArguments = make(
        output_dir=str(output.folder),
        per_device_train_batch_size=spec.batch_size,
        per_device_eval_batch_size=evaluation.batch_size,
        gradient_accumulation_steps=spec.accumulation,
        num_train_epochs=spec.epochs or 1,
        max_steps=spec.max_steps or -1,
        learning_rate=spec.lr.head if isinstance(spec.lr, RatesSpec) else spec.lr,
        optim=optimizer_name(spec.optimizer.name),
        **{"lr_scheduler_kwargs": None, **schedule},
        warmup_steps=plan.warmup_steps or 0,
        max_grad_norm=spec.clip or 0.0,
        eval_strategy="epoch" if evaluates else "no",
        eval_on_start=evaluates and evaluation.at_start,
        save_strategy="epoch",
        load_best_model_at_end=best_metric is not None,
        metric_for_best_model=best_metric,
        greater_is_better=evaluation.greater_is_better if best_metric is not None else None,
        logging_strategy="steps",
        logging_steps=1,  # the running mean of several steps is lost on resume
        logging_nan_inf_filter=False,
        seed=stage.seed,
        data_seed=stage.seed,
        use_cpu=computes_on_cpu(),  # otherwise transformers 5.23 refuses bf16 on the CPU
        bf16=mode.precision == "bf16",
        fp16=mode.precision == "fp16",
        torch_compile=mode.compile,
        dataloader_num_workers=data.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=list(output.track) or "none",
        push_to_hub=False,
        label_smoothing_factor=0.0,  # the loss smooths the labels
        disable_tqdm=True,
        ddp_backend=deepspeed_cpu_backend(),
        log_level_replica="passive",  # the Trainer's default makes all processes but the first more verbose
    )
    if arguments.n_gpu > 1:
        logger.info("Using one of %d GPUs; accelerate launch uses all of them.", arguments.n_gpu)
        # Otherwise the Trainer would use DataParallel, and multiply the batch size by the number of GPUs.
        arguments._n_gpu = 1
    return arguments
