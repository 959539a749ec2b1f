"""``StagedTrainer``: training in stages for users of transformers' ``Trainer``, with their own model and data."""

import inspect
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from hf_finetune.distributed import broadcast_from_main, is_sharded, start_processes, wait_for_all
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import atomic_file
from hf_finetune.methods import StageContext, build_methods
from hf_finetune.methods.base import Collate, TaskLabels
from hf_finetune.methods.proximal import pretrained_weights
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.stages import Plan, PlannedStage, build_plan
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets import TARGETS
from hf_finetune.targets.losses import loss_for
from hf_finetune.targets.model_config import get_target
from hf_finetune.training.averaged_stage import train_averaged
from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_result import result_lines
from hf_finetune.training.stage_weights import WEIGHTS, load_weights
from hf_finetune.training.trainer import SingleStageTrainer
from hf_finetune.training.trainer_defaults import complete_stages
from hf_finetune.training.validation_loss import add_loss_metric

__all__ = ["StagedTrainer"]

logger = logging.getLogger(__name__)

Metrics = dict[str, dict[str, float]]

STAGES = "stages.json"
"""File with the stages and the metrics of those that are done."""
LABELS = ("labels", "label", "label_ids")
"""Usual names of the labels of an example."""


class StagedTrainer:
    """Trainer for a transformers model in stages, one after another, as ``run`` does for a recipe.

    In each stage exactly the selected parameters are trained: all others are frozen, and their modules stay in eval
    mode. Each stage has its own optimizer, and begins with the best weights of the stage before it. The model is
    evaluated before the first step and after each epoch of a stage; the weights with the best metric are kept,
    including the initial ones. Without an ``eval_dataset`` the last weights are kept.

    The loss is that of the labels, by ``model.config.problem_type``: its mean over the whole batch, for any number of
    accumulation steps and processes. Checkpoints are written to ``args.output_dir/stages``.

    Args:
        model: Classifier of transformers, or of timm as ``TimmWrapperForImageClassification``. It is trained in place.
        stages: Stages in their order.
        args: ``TrainingArguments``. The fields of a stage take precedence; fields that a stage leaves out are read
            from here: duration, batch size, accumulation, learning rate, schedule, warmup, optimizer, weight decay,
            clipping and label smoothing. ``metric_for_best_model`` selects the best weights, by default the loss.
            Whatever ``args`` says, each stage evaluates and saves once per epoch, logs every step, and pushes nothing
            to the Hub.
        train_dataset: Training examples: mappings with the model's inputs, and ``labels`` or ``label``.
        eval_dataset: Validation examples; None keeps the last weights of each stage.
        data_collator: Function from a list of examples to a batch: tensors ``[batch, ...]`` by name, with ``labels``
            ``[batch]``, or ``[batch, classes]`` for multi-label data. None pads texts if ``processing_class`` is a
            tokenizer, and otherwise stacks.
        processing_class: Tokenizer or image processor, which ``save_model`` saves with the model.
        compute_metrics: Function from an ``EvalPrediction``, with logits ``[examples, classes]``, to metrics by name.
        callbacks: Further callbacks of each stage.

    Attributes:
        model: The model.
        stages: Stages with the fields that ``args`` has filled in.
        plan: Plan of the stages, see ``build_plan``.

    Raises:
        InputError: If a stage is invalid, its selector matches nothing, or it needs the files of a run (``teacher``,
            ``compress``); or under FSDP or DeepSpeed. All problems are listed.

    Example:
        >>> from transformers import TrainingArguments
        >>> from hf_finetune import Stage, StagedTrainer
        >>> trainer = StagedTrainer(
        ...     model,
        ...     stages=[Stage("head", epochs=1, lr=1e-2), Stage("all", epochs=1, lr=1e-3)],
        ...     args=TrainingArguments("runs/stages", per_device_train_batch_size=4, report_to="none"),
        ...     train_dataset=train_data,
        ...     eval_dataset=validation_data,
        ... )
        >>> [stage.trainable_size for stage in trainer.plan.stages]
        [51, 5459]
        >>> sorted(trainer.train())
        ['all', 'head']
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stages: Sequence[StageSpec],
        *,
        args: TrainingArguments | None = None,
        train_dataset: Any,
        eval_dataset: Any = None,
        data_collator: Collate | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[Any], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        _check_sharding(args)
        state = start_processes()
        self.model = model
        self.args = args if args is not None else TrainingArguments()
        self.train_dataset = self._used_columns(train_dataset)
        self.eval_dataset = self._used_columns(eval_dataset)
        if data_collator is None and isinstance(processing_class, PreTrainedTokenizerBase):
            data_collator = DataCollatorWithPadding(processing_class)
        self.data_collator: Collate = data_collator or default_data_collator
        self.processing_class = processing_class
        self.compute_metrics = compute_metrics or (lambda prediction: {})
        self.callbacks = tuple(callbacks)
        examples, layout = len(train_dataset), read_layout(model)
        self.stages = complete_stages(stages, model, layout, self.args, examples)
        self.plan: Plan = build_plan(layout, self.stages, examples, state.num_processes)
        self._target = get_target(model.config)

    def train(self, resume_from_checkpoint: bool = False) -> dict[str, dict[str, float]]:
        """Train all stages, and keep the weights of the last one in ``model``.

        Args:
            resume_from_checkpoint: Whether to continue after an interruption: finished stages are loaded, and the
                current one resumes from its last checkpoint. The model must be as at the first call.

        Returns:
            Metrics of the kept weights on the validation split, with the ``loss``, by the name of the stage; empty
            mappings without an ``eval_dataset``.

        Raises:
            InputError: If the output folder contains stages and training is not resumed, or contains other stages.
            DivergedError: If the loss, the gradient norm or the logits are not finite.
            KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.

        Example:
            >>> from transformers import TrainingArguments
            >>> from hf_finetune import Stage, StagedTrainer
            >>> args = TrainingArguments("runs/head", learning_rate=1e-2, report_to="none")
            >>> stages = [Stage("head", max_steps=2)]
            >>> StagedTrainer(model, stages, args=args, train_dataset=train_data).train()
            {'head': {}}
        """
        state, folder = PartialState(), Path(self.args.output_dir)
        checkpoint_weights = pretrained_weights(self.model, self.stages, self.plan)
        metrics = broadcast_from_main(
            state, lambda: self._read_or_create_record(folder, resume_from_checkpoint)
        )
        if isinstance(metrics, Problem):
            raise InputError(metrics)
        if metrics:
            done = len(metrics) - 1
            load_weights(self.model, stage_folder(folder, done, self.stages[done].name) / WEIGHTS)
        for index, spec in list(enumerate(self.stages))[len(metrics) :]:
            context = self._context(index, folder, checkpoint_weights)
            metrics[spec.name] = self._train_stage(context, index, folder, resume_from_checkpoint)
            if state.is_main_process:
                self._record(folder, metrics)
            wait_for_all(state)
        return metrics

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        """Compute the loss and the metrics of the model as it is.

        Args:
            eval_dataset: Examples; None takes those of the trainer.

        Returns:
            ``eval_loss``, each metric of ``compute_metrics`` with the prefix ``eval_``, and timings.

        Raises:
            ValueError: If there are no examples.

        Example:
            >>> from hf_finetune import Stage, StagedTrainer
            >>> trainer = StagedTrainer(model, [Stage("head")], train_dataset=train_data, eval_dataset=validation_data)
            >>> trainer.evaluate()["eval_loss"] > 0
            True
        """
        dataset = self.eval_dataset if eval_dataset is None else self._used_columns(eval_dataset)
        loss = loss_for(self._target)
        trainer = SingleStageTrainer(
            groups=(),
            target=self._target,
            model=self.model,
            args=_evaluation_arguments(self.args),
            data_collator=self.data_collator,
            compute_loss_func=loss,
            compute_metrics=add_loss_metric(self.compute_metrics, loss),
        )
        trainer.remove_callback(PrinterCallback)
        metrics: dict[str, float] = trainer.evaluate(dataset)
        return metrics

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Save the model, with the tokenizer or image processor, from the main process.

        Plain transformers loads the folder with ``from_pretrained``, and ``Predictor`` predicts with it.

        Args:
            output_dir: Folder to write; None is ``args.output_dir``.

        Raises:
            OSError: If the folder cannot be written.

        Example:
            >>> from hf_finetune import Stage, StagedTrainer
            >>> trainer = StagedTrainer(model, [Stage("head")], train_dataset=train_data)
            >>> trainer.save_model("saved")
            >>> type(model).from_pretrained("saved").num_labels
            3
        """
        if PartialState().is_main_process:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _used_columns(self, dataset: Any) -> Any:
        """Return a dataset without the columns that the model does not take, as ``Trainer`` does."""
        is_plain = isinstance(dataset, Dataset) and dataset.format["type"] != "custom"
        if not is_plain or not self.args.remove_unused_columns:
            return dataset
        known = {*inspect.signature(self.model.forward).parameters, *LABELS}
        return dataset.select_columns([name for name in dataset.column_names if name in known])

    def _read_or_create_record(self, folder: Path, resumes: bool) -> Metrics | Problem:
        """Return the metrics of the stages that are done, or why the folder cannot be used; record new stages."""
        file = folder / "stages" / STAGES
        if not file.is_file():
            self._record(folder, {})
            return {}
        repair = "Continue with train(resume_from_checkpoint=True), or choose another folder."
        if not resumes:
            rule = "must not contain stages of an earlier training"
            return Problem("args.output_dir", rule, str(folder), repair)
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["stages"] != self._stages_as_json():
            rule = "must contain the same stages to resume"
            return Problem("args.output_dir", rule, str(folder), "Choose another folder.")
        metrics: Metrics = content["metrics"]
        return metrics

    def _record(self, folder: Path, metrics: Metrics) -> None:
        (folder / "stages").mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / "stages" / STAGES) as partial:
            content = {"stages": self._stages_as_json(), "metrics": metrics}
            partial.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def _stages_as_json(self) -> list[dict[str, Any]]:
        return [spec.model_dump(mode="json") for spec in self.stages]

    def _context(self, index: int, folder: Path, checkpoint_weights: Any) -> StageContext:
        """Return stage, model and labels, from which the methods of the stage are built."""
        spec, args = self.stages[index], self.args
        best = None
        if spec.best is not None and self.eval_dataset is not None:
            best = (spec.best.metric or args.metric_for_best_model or "loss").removeprefix("eval_")
        greater = args.greater_is_better if spec.best is None or spec.best.metric is None else None
        greater_is_better = bool(greater) if greater is not None else best not in (None, "", "loss")
        previous = self.stages[index - 1].name
        return StageContext(
            PlannedStage(spec, self.plan.stages[index], args.seed + index),
            self.model,
            () if spec.balance.method == "none" else (self._task_labels(),),
            earlier=self.stages[:index],
            previous=stage_folder(folder, index - 1, previous) if index else folder,
            pretrained=checkpoint_weights,
            best_metric=best,
            greater_is_better=greater_is_better,
        )

    def _task_labels(self) -> TaskLabels:
        """Return the labels of the training examples, for the correction of class imbalance."""
        batches = (self.data_collator([example]) for example in self.train_dataset)
        labels = [batch["labels"][0].tolist() for batch in batches]
        if TARGETS[self._target].has_several_classes:
            labels = [[index for index, is_set in enumerate(label) if is_set] for label in labels]
        names = tuple(self.model.config.id2label.values())
        return TaskLabels("", self._target, names, labels, len(labels))

    def _train_stage(
        self, context: StageContext, index: int, folder: Path, resumes: bool
    ) -> dict[str, float]:
        spec, args, best = context.stage.spec, self.args, context.best_metric
        logger.info("Stage %d of %d, %s, begins.", index + 1, len(self.stages), spec.name)
        next_stage = self.stages[index + 1] if index + 1 < len(self.stages) else None
        speed = SpeedSpec(
            precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
            compile=bool(args.torch_compile),
            prefix_cache=None,
        )
        result = train_averaged(
            self.model,
            context.stage,
            StageData(
                self._target,
                self.train_dataset,
                self.data_collator,
                self.eval_dataset,
                workers=args.dataloader_num_workers,
            ),
            output=StageOutput(
                stage_folder(folder, index, spec.name),
                resumes,
                next_stage is not None and next_stage.carry_optimizer,
                args.report_to,
            ),
            evaluation=StageEvaluation(
                args.per_device_eval_batch_size, self.compute_metrics, best, context.greater_is_better
            ),
            execution=ExecutionSettings(speed, arguments=args),
            build_methods=lambda model: build_methods(replace(context, model=model)),
            callbacks=self.callbacks,
        )
        for line in result_lines(
            spec.name, result, best, leading=best or "loss", greater_is_better=context.greater_is_better
        ):
            logger.info(line)
        return {name: float(value) for name, value in result.validation.items()}


def _check_sharding(args: TrainingArguments | None) -> None:
    """Raise ``InputError`` if the processes would divide the model, which is then not whole after a stage."""
    if is_sharded() or (args is not None and (args.fsdp or args.deepspeed)):
        repair = "Write a recipe, and use hf_finetune.run, which reloads the model for each stage."
        raise InputError(Problem("StagedTrainer", "must be used without FSDP and DeepSpeed", "", repair))


def _evaluation_arguments(args: TrainingArguments) -> TrainingArguments:
    return replace(
        args,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
