"""Images with stock transformers: a script that first freezes the backbone and then trains all layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import DatasetDict, load_dataset
from torch import nn
from torchvision.transforms import InterpolationMode, v2
from transformers import AutoConfig, AutoModelForImageClassification, set_seed

from benchmarks.contenders.stock_phases import train_phases
from benchmarks.watch import Watch

__all__ = [
    "build_transforms",
    "collate",
    "freeze",
    "load_dishes",
    "load_model",
    "measure",
    "transform_with",
]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Train the phases in turn, each with its own Trainer."""
    set_seed(work["seed"])
    watch = Watch()
    data = load_dishes(work)
    model = load_model(work, data["train"].features["label"].names)
    watch.start()
    trained = train_phases(
        model,
        work,
        (data["train"], data["validation"]),
        collate,
        freeze,
        watch,
        bf16=work["precision"] == "bf16",
        remove_unused_columns=False,
    )
    return {**watch.result(), "trained": trained}


def load_dishes(work: Mapping[str, Any]) -> DatasetDict:
    """Load the images; the training images are augmented."""
    files = {name: f"{work['data']}/{name}.parquet" for name in ("train", "validation")}
    data = load_dataset("parquet", data_files=files)
    augmented, plain = build_transforms(work)
    return DatasetDict(
        train=data["train"].with_transform(transform_with(augmented)),
        validation=data["validation"].with_transform(transform_with(plain)),
    )


def build_transforms(work: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Return a transform that augments images like ``augment: standard``, and one that does not."""
    cfg = AutoConfig.from_pretrained(work["checkpoint"]).pretrained_cfg
    mode, size = InterpolationMode(cfg["interpolation"]), work["image_size"]
    to_tensor = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(cfg["mean"], cfg["std"]),
        v2.ToPureTensor(),
    ]
    crop = v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(0.8, 1.25), interpolation=mode)
    jitter = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02)
    augmented = v2.Compose([crop, v2.RandomHorizontalFlip(), jitter, *to_tensor])
    plain = v2.Compose([v2.Resize(size, interpolation=mode), v2.CenterCrop(size), *to_tensor])
    return augmented, plain


def load_model(work: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Load the checkpoint with a new head."""
    return AutoModelForImageClassification.from_pretrained(
        work["checkpoint"],
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )


def freeze(model: Any, trained: str | Sequence[str]) -> None:
    """Freeze all parameters that are not trained.

    Args:
        model: Model of timm, in transformers.
        trained: ``head``, ``all``, or prefixes of parameter names.
    """
    head = {id(each) for each in model.timm_model.get_classifier().parameters()}
    for name, parameter in model.named_parameters():
        if isinstance(trained, str):
            parameter.requires_grad = trained == "all" or id(parameter) in head
        else:
            parameter.requires_grad = name.startswith(tuple(trained))


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Return a batch."""
    return {
        "pixel_values": torch.stack([each["pixel_values"] for each in examples]),
        "labels": torch.tensor([each["labels"] for each in examples]),
    }


def transform_with(transform: nn.Module) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, Any]]:
    """Return a function that transforms the images of a batch of rows."""

    def apply(batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        images = [transform(image.convert("RGB")) for image in batch["image"]]
        return {"pixel_values": images, "labels": batch["label"]}

    return apply
