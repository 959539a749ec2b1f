"""peft adapters: add them to a model, identify their parameters, and merge them into the model's weights.

peft's layers are injected into the model itself, without a wrapper around it. The model keeps its transformers class,
and freezing, checkpoints and plans refer to its parameters by name as they do without an adapter.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_finetune.models.adapter_layers import describe_layers, has_suffix, target_layers
from hf_finetune.recipe.adapter import AdapterSpec, LowRank

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTunerLayer

__all__ = [
    "ADAPTER",
    "adapted_layers",
    "adapter_dropouts",
    "adapter_kind",
    "adapter_names",
    "add_adapter",
    "merge_adapter",
    "names_without_adapter",
    "uncalled_layers",
]

ADAPTER = "default"
"""peft's default adapter name; a model has only this one."""

MERGE_TOLERANCE = 1e-3
"""Largest accepted change of a logit by merging, relative to the largest logit. In fp32 it is about 1e-6."""


def add_adapter(model: PreTrainedModel, head: Collection[str], spec: AdapterSpec, seed: int = 0) -> str:
    """Add an adapter to a model, in place. The outputs do not change until it is trained.

    Args:
        model: Any classifier of transformers; may be on the meta device.
        head: Names of the head's parameters. The head is trained itself and gets no adapter.
        spec: Adapter of a recipe.
        seed: Seed of the adapter's weights.

    Returns:
        Description of the adapter: its kind, its rank and its layers.

    Raises:
        InputError: If an entry of ``target`` matches no layer that can have an adapter.

    Source: Hu et al. 2021 (LoRA), Liu et al. 2024 (DoRA), Liu et al. 2022 (IA3), all as in peft.
    """
    from peft import IA3Config, LoraConfig, inject_adapter_in_model
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING

    layers = target_layers(model, head, spec.type, spec.target)
    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in layers)
    config: PeftConfig
    if isinstance(spec, LowRank):
        rank = f" of rank {spec.r}"
        config = LoraConfig(
            r=spec.r,
            lora_alpha=spec.alpha,
            lora_dropout=spec.dropout,
            use_dora=spec.type == "dora",
            target_modules=layers,
            fan_in_fan_out=transposed,
        )
    else:
        rank = ""
        inputs = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(model.config.model_type, ())
        scaled_inputs = [name for name in layers if has_suffix(name, inputs)]
        config = IA3Config(
            target_modules=layers, feedforward_modules=scaled_inputs, fan_in_fan_out=transposed
        )
    sentence = f"An adapter, {spec.type}{rank}, is in {describe_layers(model, layers)}"
    transformers.set_seed(seed)
    inject_adapter_in_model(config, model, ADAPTER)
    return sentence


def adapter_kind(model: nn.Module) -> str:
    """Return the kind of a model's adapter: ``lora``, ``dora``, ``ia3`` or another of peft's; empty if it has none."""
    if not adapted_layers(model):
        return ""
    config = next(iter(model.peft_config.values()))  # type: ignore[operator]
    return "dora" if getattr(config, "use_dora", False) else str(config.peft_type.value).lower()


def adapted_layers(model: nn.Module) -> dict[str, "BaseTunerLayer"]:
    """Return the layers that have an adapter, by name; none before peft is imported, which takes half a second."""
    if "peft" not in sys.modules:
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def names_without_adapter(model: nn.Module) -> dict[str, str]:
    """Return each parameter's name in the model without adapters; adapter parameters map to their layer's weight."""
    names = {name: name for name, _ in model.named_parameters()}
    for layer, module in adapted_layers(model).items():
        for name, _ in module.named_parameters():
            base_name = name.removeprefix("base_layer.") if name.startswith("base_layer.") else "weight"
            names[f"{layer}.{name}"] = f"{layer}.{base_name}"
    return names


def adapter_names(model: nn.Module) -> set[str]:
    """Return the names of the adapter parameters."""
    return {
        f"{layer}.{name}"
        for layer, module in adapted_layers(model).items()
        for name, _ in module.named_parameters()
        if not name.startswith("base_layer.")
    }


def adapter_dropouts(model: nn.Module) -> dict[nn.Module, bool]:
    """Return the dropout module of each adapted layer, mapped to whether its adapter is trained.

    peft registers the dropout before the adapter's weights, so by its position alone it would belong to the layers
    before the adapter.
    """
    return {
        module.lora_dropout: any(
            parameter.requires_grad
            for name, parameter in module.named_parameters()
            if not name.startswith("base_layer.")
        )
        for module in adapted_layers(model).values()
        if hasattr(module, "lora_dropout")
    }


@contextmanager
def uncalled_layers(model: nn.Module) -> Iterator[Collection[str]]:
    """Yield the names of the adapted layers not called yet; forward passes within the block remove those they call.

    Some models (BEiT in timm 1.0) read a layer's weight without calling the layer, so its adapter has no effect.
    """
    uncalled: dict[str, Any] = adapted_layers(model)

    def hook(name: str) -> Any:
        def called(*_: Any) -> None:
            uncalled.pop(name, None)

        return called

    handles = [layer.register_forward_hook(hook(name)) for name, layer in uncalled.items()]
    try:
        yield uncalled
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def merge_adapter(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
    """Merge the adapter into the weights and remove its layers, in place.

    Args:
        model: Classifier with an adapter, on the CPU, in fp32.
        batch: Inputs of the model, to compare the logits before and after.

    Returns:
        Largest change of a logit, relative to the largest logit.

    Raises:
        RuntimeError: If the change exceeds ``MERGE_TOLERANCE``.
    """
    before = model.eval()(**batch).logits
    for name, layer in adapted_layers(model).items():
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    change = float((model(**batch).logits - before).abs().max() / before.abs().max().clamp_min(1e-12))
    if not change <= MERGE_TOLERANCE:
        raise RuntimeError(
            f"The adapter cannot be merged: a logit changes by {change:.1g} of the largest, beyond {MERGE_TOLERANCE:g}."
        )
    return change
