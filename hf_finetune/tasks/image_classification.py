"""Image classification and regression."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from transformers import PreTrainedConfig, default_data_collator

from hf_finetune.data.augment import augmented_edge, varying_transform
from hf_finetune.data.images import (
    ImageTransform,
    NormalizingCollate,
    Size,
    TransformedImages,
    processor_transform,
)
from hf_finetune.data.labels import class_count
from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.seeded_augmentation import SeededExamples
from hf_finetune.models.export import set_image_size
from hf_finetune.recipe.schema import DataSpec
from hf_finetune.tasks.base import Inputs

__all__ = ["ImageClassification"]

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


class ImageClassification:
    """Task that predicts one class, several classes or a continuous target for each image."""

    name: ClassVar[str] = "image-classification"
    modality: ClassVar[Literal["image", "text"]] = "image"

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> tuple[str, ...]:
        """Set the image size and the crop ratio in the processor and the config. There are no messages."""
        set_image_size(processor, config, data.image_size, data.crop_pct)
        return ()

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Return augmented training images, and validation images prepared exactly as for inference."""
        classes = class_count(data.train.features)
        plain = ImageTransform(processor_transform(processor), classes, fixed=True)
        train, collate = replace(plain, training=True), default_data_collator
        if spec.augment.varies(self.modality):
            preset, named = spec.augment.preset, spec.augment.transform_list()
            size, mean, std, interpolation = _pixels(processor)
            transform = varying_transform(preset, spec.augment.erase, named, size, mean, std, interpolation)
            train = ImageTransform(
                transform, classes, edge=augmented_edge(preset, named, size), training=True
            )
            collate = NormalizingCollate(default_data_collator, mean, std)
        return Inputs(
            train=SeededExamples(TransformedImages(data.train, train), seed),
            validation=None if data.validation is None else TransformedImages(data.validation, plain),
            collate=collate,
        )

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Return a batch of one gray image."""
        image = Image.new("RGB", (64, 64), (128, 128, 128))
        return {"pixel_values": processor_transform(processor)(image)[None]}


def _size(height: int, width: int) -> Size:
    return height if height == width else (height, width)


def _pixels(processor: Any) -> tuple[Size, tuple[float, ...], tuple[float, ...], str]:
    """Return the image size, channel means, channel standard deviations and interpolation of a processor."""
    timm_config = getattr(processor, "data_config", None)
    if timm_config is not None:
        mean, std = tuple(timm_config["mean"]), tuple(timm_config["std"])
        return _size(*timm_config["input_size"][-2:]), mean, std, timm_config["interpolation"]
    shape = getattr(processor, "crop_size", None) or processor.size
    size = _size(shape["height"], shape["width"]) if shape.get("height") else shape["shortest_edge"]
    interpolation = INTERPOLATIONS.get(int(processor.resample), "bicubic")
    return size, tuple(processor.image_mean), tuple(processor.image_std), interpolation
