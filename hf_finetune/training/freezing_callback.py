"""Callback that freezes and unfreezes parameters on any ``Trainer``, and checks optimizer, wrapper and weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from safetensors import safe_open
from torch import distributed, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.distributed import is_sharded
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.selectors import select
from hf_finetune.training.freezing import freeze_all_but

__all__ = ["FreezingCallback"]

Selector = str | Sequence[str]


class FreezingCallback(TrainerCallback):
    """Callback that trains only the parameters of a selector. Works on any ``Trainer``.

    ``FreezingCallback("head")`` freezes all other parameters once, before the optimizer exists, which then holds
    exactly the trained parameters. Use a new Trainer for each stage.

    ``FreezingCallback({0: "head", 2: "last:3", 4: "all"})`` changes the trained parameters at the start of these
    epochs, within one ``train()``. The optimizer then holds the parameters of all phases, and skips those that have no
    gradient at the moment. The phase follows from ``state.epoch``, so a resumed run continues in the right one. On
    several processes pass ``ddp_find_unused_parameters=True``.

    A custom optimizer needs the parameters of all phases too: ``hf_finetune.parameter_groups`` returns them.

    Args:
        phases: A selector, as in a recipe's ``train:``; or a mapping from the epoch (from 0) at which a phase starts
            to its selector.

    Raises:
        ValueError: If the keys of ``phases`` are not whole numbers from 0, or 0 is missing. When training begins, if
            the optimizer lacks a parameter of a phase, or the parameter was frozen when the model was wrapped for
            several processes.
        InputError: When training begins, if a selector matches nothing in the model.
        RuntimeError: If the Trainer resumed with other weights than it saved, or the gradients of the processes
            differ.

    Example:
        >>> from transformers import Trainer, TrainingArguments
        >>> from hf_finetune import FreezingCallback
        >>> trainer = Trainer(
        ...     model=model,
        ...     args=TrainingArguments("runs/callback", num_train_epochs=2, learning_rate=1e-3, report_to="none"),
        ...     train_dataset=train_data,
        ...     callbacks=[FreezingCallback({0: "head", 1: "all"})],
        ... )
        >>> output = trainer.train()
        {...}
        >>> output.metrics["epoch"]
        2.0
    """

    def __init__(self, phases: Selector | Mapping[int, Selector]):
        self.is_single_phase = not isinstance(phases, Mapping)
        self.phases: dict[int, Selector] = {0: phases} if not isinstance(phases, Mapping) else dict(phases)
        if wrong := [epoch for epoch in self.phases if type(epoch) is not int or epoch < 0]:
            raise ValueError(f"phases must have epochs as keys, whole numbers from 0. Got {wrong[0]!r}.")
        if 0 not in self.phases:
            raise ValueError(f"phases must begin at epoch 0. Got {sorted(self.phases)}.")
        self._frozen_model: nn.Module | None = None  # model that has been frozen for a phase
        self._phase_start: int | None = None  # epoch at which the current phase starts
        self._gradients_unchecked = False

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze the parameters that no phase trains, before the optimizer and the distributed wrapper are created."""
        model = _unwrapped(kwargs["model"])
        names = self._parameters_by_phase(model)
        freeze_all_but(model, {name for trained_names in names.values() for name in trained_names})
        self._frozen_model = self._phase_start = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that optimizer, distributed wrapper and weights suit every phase, and enter the current one."""
        model = _unwrapped(kwargs["model"])
        names = self._parameters_by_phase(model)
        if state.global_step > 0:
            _check_resumed(model, Path(args.output_dir) / f"checkpoint-{state.global_step}")
        if kwargs.get("optimizer") is not None:
            _check_optimizer(model, kwargs["optimizer"], names)
        # in a further train() this callback itself has frozen parameters, after the model was wrapped
        if args.world_size > 1 and self._frozen_model is not model:
            _check_wrapped(model, names)
        self._phase_start = None
        self._enter(model, state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Enter the phase of this epoch."""
        self._enter(_unwrapped(kwargs["model"]), state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check at the first step of a phase that all processes have the same gradients."""
        if not self._gradients_unchecked:
            return
        self._gradients_unchecked = False
        if args.world_size > 1 and (names := _unsynced_gradients(_unwrapped(kwargs["model"]))):
            raise RuntimeError(
                f"Gradients must be equal in all processes. From epoch {self._phase_start} on they differ for "
                f"{len(names)} parameters (first: {names[0]!r}), which were frozen when the model was wrapped for "
                "distributed training. Pass this callback to the constructor of a new Trainer."
            )

    def _enter(self, model: nn.Module, state: TrainerState) -> None:
        epoch = math.floor((state.epoch or 0.0) + 1e-6)
        start = max(start for start in self.phases if start <= epoch)
        if start != self._phase_start:
            freeze_all_but(model, self._parameters_by_phase(model)[start])
            self._frozen_model, self._phase_start, self._gradients_unchecked = model, start, True

    def _parameters_by_phase(self, model: nn.Module) -> dict[int, tuple[str, ...]]:
        layout = read_layout(model)
        return {
            epoch: select(layout, selector, "train" if self.is_single_phase else f"phases[{epoch}]")
            for epoch, selector in self.phases.items()
        }


def _check_optimizer(model: nn.Module, optimizer: Any, names: Mapping[int, Sequence[str]]) -> None:
    optimizer_parameter_ids = {
        id(parameter) for group in optimizer.param_groups for parameter in group["params"]
    }
    parameters = dict(model.named_parameters())
    for epoch, trained_names in names.items():
        if missing := [name for name in trained_names if id(parameters[name]) not in optimizer_parameter_ids]:
            raise ValueError(
                f"The optimizer must contain every parameter that the callback trains from epoch {epoch}. "
                f"It lacks {len(missing)} (first: {missing[0]!r}). Pass the callback to the Trainer's constructor, so "
                "that the optimizer is created after it, or add these parameters to your own optimizer."
            )


def _check_wrapped(model: nn.Module, names: Mapping[int, Sequence[str]]) -> None:
    """Raise ``ValueError`` if a phase's parameters were frozen when the model was wrapped for several processes.

    ``DistributedDataParallel`` averages the gradients only of parameters that require one when it is created: the
    others would diverge between the processes.
    """
    parameters = dict(model.named_parameters())
    for epoch, trained_names in names.items():
        if frozen := [name for name in trained_names if not parameters[name].requires_grad]:
            raise ValueError(
                f"Every parameter that the callback trains from epoch {epoch} must require a gradient when the model "
                f"is wrapped for distributed training. {len(frozen)} did not (first: {frozen[0]!r}). Pass the callback "
                "to the constructor of a new Trainer, and do not freeze these parameters."
            )


def _check_resumed(model: nn.Module, checkpoint: Path) -> None:
    """Raise ``RuntimeError`` if the Trainer could not reload the weights of the checkpoint.

    transformers 5.23 saves the weights of ViT, DeiT, DINOv2, Swin and others under names that it does not reload them
    by, and only warns of unknown names.
    """
    if not (checkpoint / "model.safetensors").is_file():
        return
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        unknown = sorted(set(file.keys()) - model.state_dict().keys())
    if unknown:
        raise RuntimeError(
            f"The Trainer must be able to reload the weights that it saved. {checkpoint} holds {len(unknown)} under "
            f"names that {type(model).__name__} does not have (first: {unknown[0]!r}). In a new run, override the "
            "Trainer's _save to call model.save_pretrained(output_dir, save_original_format=False)."
        )


def _unsynced_gradients(model: nn.Module) -> list[str]:
    """Return the names of trained parameters whose gradients, after averaging, differ between the processes.

    A collective call that all processes make. The result is empty on a single process, and where the model is sharded
    (each process holds a part of it).
    """
    if not distributed.is_initialized() or distributed.get_world_size() < 2 or is_sharded():
        return []
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sums = [_sums(parameter) for parameter in trained.values()]
    if not sums:
        return []
    lowest = torch.stack(sums)
    highest = lowest.clone()
    distributed.all_reduce(lowest, distributed.ReduceOp.MIN)
    distributed.all_reduce(highest, distributed.ReduceOp.MAX)
    differ = (lowest != highest).any(dim=1).tolist()
    return [name for name, different in zip(trained, differ, strict=True) if different]


def _sums(parameter: nn.Parameter) -> torch.Tensor:
    """Return sum and absolute sum of a gradient, fp32 [2], with nan replaced by 0, because nan != nan."""
    if parameter.grad is None:
        return torch.zeros(2, dtype=torch.float32, device=parameter.device)
    gradient = parameter.grad.float()
    return torch.stack([gradient.sum(), gradient.abs().sum()]).nan_to_num()


def _unwrapped(model: nn.Module) -> nn.Module:
    inner: nn.Module = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner
