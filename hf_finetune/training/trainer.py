"""Trainer of a stage: optimizer with exactly the planned groups, exact loss normalization, reloadable checkpoints."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.deepspeed import DummyOptim
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedModel, Trainer
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_utils import EvalLoopOutput
from transformers.training_args import OptimizerNames

from hf_finetune.data.distributed_sampling import (
    DistributedBatchSampler,
    LengthGroupedSampler,
    PaddedDataset,
    count_labels,
    forward_set_epoch,
)
from hf_finetune.distributed import prepare_sharding
from hf_finetune.methods.base import Method
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.best_epoch import evaluations, is_better, is_undefined
from hf_finetune.planning.groups import ParameterGroup
from hf_finetune.tasks.examples import SequenceOutputs
from hf_finetune.training.checkpoints import remove_old_checkpoints, report_broken_state, seal_checkpoint
from hf_finetune.training.optimizers import trainer_schedule
from hf_finetune.training.sequence_validation import losses_and_tokens

__all__ = ["SingleStageTrainer"]

logger = logging.getLogger(__name__)

SGD_MOMENTUM = 0.9


class SingleStageTrainer(Trainer):
    """``Trainer`` that trains planned parameter groups, with the methods of a stage.

    The loss of the labels is ``compute_loss_func``, see ``targets.losses.loss_for``; without it, the model computes the
    loss.

    Args:
        groups: Parameter groups of the stage, with the names of the model's parameters.
        optimizer_args: Arguments of the optimizer class besides learning rate and weight decay.
        target: Label type, by which the labels of a step are counted.
        lengths: Number of tokens of each training example, to batch examples of similar length; None for random
            batches.
        methods: Methods of the stage, in the order in which their hooks are called. They add to the loss, and their
            callbacks come before the other ones.
        kwargs: Arguments of ``Trainer``.

    Attributes:
        sequences: How sequences are written in validation, by a model whose output is one; None for other models.
    """

    def __init__(
        self,
        *,
        groups: Sequence[ParameterGroup],
        optimizer_args: dict[str, Any] | None = None,
        target: str = "",
        lengths: Sequence[int] | None = None,
        methods: Sequence[Method] = (),
        **kwargs: Any,
    ):
        self.target, self.lengths, self.methods = target, lengths, tuple(methods)
        self.sequences: SequenceOutputs | None = None
        self.planned_groups = tuple(groups)
        self.optimizer_args = dict(optimizer_args or {})
        loss = self.label_loss = kwargs.pop("compute_loss_func", None)
        for method in self.methods if loss is not None else ():
            loss = method.wrap_loss(loss, target)
        method_callbacks = [callback for method in self.methods for callback in method.callbacks()]
        callbacks = [*method_callbacks, *(kwargs.pop("callbacks", None) or ())]
        super().__init__(compute_loss_func=loss, callbacks=callbacks, **kwargs)
        # Many heads accept **kwargs but ignore num_items_in_batch. The Trainer would then treat their mean over the
        # micro-batch as one over the whole batch, and the gradient would grow with the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._disable_checkpointing_of_frozen_prefix()

    def _disable_checkpointing_of_frozen_prefix(self) -> None:
        """Disable gradient checkpointing if no parameter of the first layer group is trained.

        Otherwise transformers 5.23 makes the output of the embeddings require a gradient, and all frozen layers after
        them are computed twice and backpropagated through.
        """
        if not self.args.gradient_checkpointing or not isinstance(self.model, PreTrainedModel):
            return
        first = {parameter.name for parameter in read_layout(self.model).parameters if parameter.group == 0}
        if not first & {name for group in self.planned_groups for name in group.parameters}:
            logger.info(
                "Gradient checkpointing disabled: the first layers are frozen and store no activations."
            )
            self.args.activation_checkpointing = self.args.gradient_checkpointing = False

    def create_accelerator_and_postprocess(self) -> None:
        """Prepare the model so that FSDP can shard it, also on the CPU, before the accelerator is created."""
        prepare_sharding(self.model)
        super().create_accelerator_and_postprocess()

    def get_train_dataloader(self) -> DataLoader:
        """Return the training data loader; on several processes each example counts exactly once per epoch."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        sampler: Any = self._get_train_sampler()
        batch_sampler = DistributedBatchSampler(
            sampler, self.args.per_device_train_batch_size, self.args.world_size
        )
        loader = DataLoader(
            PaddedDataset(self.train_dataset),
            batch_sampler=batch_sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader = self.accelerator.prepare(loader)
        forward_set_epoch(prepared, sampler)
        return prepared

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Return the sampler of the first method that has one, a length-grouped one, or the Trainer's."""
        examples_per_step = (
            self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        )
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        for method in self.methods:
            if (sampler := method.sampler(seed, self.lengths, examples_per_step)) is not None:
                return sampler
        if self.lengths is None:
            return super()._get_train_sampler(train_dataset)
        return LengthGroupedSampler(self.lengths, examples_per_step, seed)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """Return the micro-batches of a step, as the methods change them, and the count of their labels."""
        for method in self.methods:
            step, process = self.state.global_step, self.accelerator.process_index
            epoch_iterator = method.on_batches(epoch_iterator, step, process)
        batches: tuple[list, Any] = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Count the labels of an optimizer step exactly.

        transformers 5.23 skips every label equal to -100, even a regression target. On several processes it also
        counts the examples that only pad the last batches.
        """
        if self.compute_loss_func is None or not batch_samples or "labels" not in batch_samples[0]:
            return super()._get_num_items_in_batch(batch_samples, device)

        def gather(number: torch.Tensor) -> torch.Tensor:
            gathered: torch.Tensor = self.accelerator.gather(number.to(device))
            return gathered

        for method in self.methods:
            if (count := method.loss_denominator(batch_samples, gather)) is not None:
                return count
        return count_labels(batch_samples, gather, self.target)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute the loss from the inputs as the methods change them."""
        for method in self.methods:
            inputs = method.on_inputs(inputs, training=model.training)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """Return loss, logits and labels of a batch; the written sequences in place of logits, if there are any."""
        step = partial(super().prediction_step, model, inputs, prediction_loss_only, ignore_keys)
        if self.sequences is None or prediction_loss_only:
            return step()
        bare = self.accelerator.unwrap_model(model)
        with self.sequences.observe(bare) as observed:
            loss, outputs, labels = step()
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        with torch.no_grad(), self.compute_loss_context_manager():
            tokens = self.sequences.predict(bare, logits, observed)
        return loss, losses_and_tokens(self.label_loss, logits, labels, tokens), labels

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate the model; after the first step through the methods' ``evaluate`` hooks."""
        evaluation = partial(super().evaluation_loop, *args, **kwargs)
        for method in self.methods if self.state.global_step > 0 else ():
            evaluation = partial(method.evaluate, evaluation)
        return evaluation()

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """Evaluate; before the first step also save the initial weights as the best checkpoint so far.

        The Trainer (5.23) passes ``skip_scheduler`` only for ``eval_on_start``, also on resume; the initial evaluation
        is already logged then, and is skipped. The evaluation does not change the random state.
        """
        if not skip_scheduler:
            return super()._evaluate(trial, ignore_keys_for_eval)
        if self.state.global_step > 0:
            return {}
        with torch.random.fork_rng(devices=()):  # only the data loader draws here, from the CPU's generator
            metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        if self.args.metric_for_best_model is not None:
            self._determine_best_metric(metrics, trial)
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / "checkpoint-0")
            optimizer_had_no_state = self.is_fsdp_enabled and not self.optimizer.state
            self._save_checkpoint(self.model, trial)
            if optimizer_had_no_state:
                # To save an empty state, FSDP (torch 2.15) fills it by a step with learning rate 0, which Adam counts.
                self.optimizer.state.clear()
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether an evaluation is better than the best one so far, see ``is_better``, and if so record it.

        The Trainer (5.23) keeps the earlier of two equal evaluations whatever their loss, and once the metric was nan
        it considers no later evaluation better.
        """
        name = self.args.metric_for_best_model
        if name is None:
            return False
        step, best = self.state.best_global_step, None
        if step is not None:
            best = next(entry for entry in evaluations(self.state.log_history) if entry["step"] == step)
        elif is_undefined(metrics, name):
            logger.warning(
                "The %s is undefined on the validation split; until it is defined, the checkpoint with the lowest "
                "validation loss is selected.",
                name,
            )
        if not is_better(metrics, best, name, greater_is_better=bool(self.args.greater_is_better)):
            return False
        self.state.best_metric = metrics[f"eval_{name}"]
        self.state.best_global_step = self.state.global_step
        return True

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer with exactly the planned groups, or pass them to that of a DeepSpeed config.

        Raises:
            ValueError: If the optimizer accepts no parameter groups.
        """
        trained = model if model is not None else self.model
        if self.optimizer is not None:  # type: ignore[has-type]
            if isinstance(self.optimizer, DummyOptim):  # type: ignore[has-type]
                self.optimizer.params = self._parameter_groups(trained)  # type: ignore[has-type]
            return self.optimizer  # type: ignore[has-type]
        optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, trained)
        if is_optimizer_factory(optimizer_class):
            raise ValueError(f"{self.args.optim} accepts no parameter groups.")
        if self.args.optim == OptimizerNames.SGD:
            arguments = {**arguments, "momentum": SGD_MOMENTUM}
        groups = self._parameter_groups(trained)
        optimizer: torch.optim.Optimizer = optimizer_class(groups, **{**arguments, **self.optimizer_args})
        for method in self.methods:
            method.on_optimizer(optimizer, self.planned_groups)
        self.optimizer = optimizer
        return optimizer

    def _parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        parameters = {
            name.replace("_orig_mod.", "").removeprefix("module."): value
            for name, value in model.named_parameters()
        }
        return [
            {
                "params": [parameters[name] for name in group.parameters],
                "lr": group.lr,
                "weight_decay": group.weight_decay,
            }
            for group in self.planned_groups
        ]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the moments from the checkpoint, but take learning rates and weight decay from the plan.

        The recipe may have been changed since the checkpoint was written.
        """
        with report_broken_state(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self.is_deepspeed_enabled:
            return
        scheduler: Any = self.lr_scheduler
        scheduler.base_lrs = [group.lr for group in self.planned_groups]
        for group, planned_group, factor_at in zip(
            self.optimizer.param_groups, self.planned_groups, scheduler.lr_lambdas, strict=True
        ):
            group["initial_lr"], group["weight_decay"] = planned_group.lr, planned_group.weight_decay
            group["lr"] = planned_group.lr * factor_at(scheduler.last_epoch)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with report_broken_state(checkpoint):
            super()._load_rng_state(checkpoint)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the scheduler: the Trainer's if all groups share one that it has, or else a schedule per group."""
        schedules = [group.schedule for group in self.planned_groups]
        is_trainer_schedule = len(set(schedules)) == 1 and trainer_schedule(schedules[0]) is not None
        if self.lr_scheduler is not None or is_trainer_schedule:  # type: ignore[has-type]
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        scheduler = LambdaLR(
            optimizer or self.optimizer,
            [
                partial(schedule.rate_factor, steps=num_training_steps, warmup_steps=warmup)
                for schedule in schedules
            ],
        )
        self.lr_scheduler, self._created_lr_scheduler = scheduler, True
        return scheduler

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the weights under the names that the Trainer reloads them by.

        transformers 5.23 would write hub names for ViT, DeiT, DINOv2, Swin and others. The Trainer reloads them with
        ``strict=False``, so it would only warn, and keep the wrong weights.

        Raises:
            TypeError: If the model is not a ``PreTrainedModel``.
        """
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"model must be a PreTrainedModel. Got {type(model).__name__}.")
        model.save_pretrained(folder, state_dict=state_dict, save_original_format=False)
        torch.save(self.args, folder / "training_args.bin")
        for method in self.methods:
            method.save(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save and seal the checkpoint once every process has written its part, and only then remove older ones.

        transformers 5.23 writes the files one after another and then rotates: a kill in between leaves checkpoints
        that look complete by their ``trainer_state.json``.
        """
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir)
            seal_checkpoint(folder / f"checkpoint-{self.state.global_step}")
            remove_old_checkpoints(folder, self.state.best_global_step)
        self.accelerator.wait_for_everyone()

    def gather_full_state_dict(self) -> dict[str, torch.Tensor] | None:
        """Return the weights gathered from all processes; None without FSDP and DeepSpeed.

        A collective call that all processes make.
        """
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        weights: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
        return weights
