"""Model inputs of images: augmented for training, and prepared as for inference."""

from dataclasses import replace
from typing import Any

from transformers import default_data_collator

from hf_finetune.targets.labels import class_count
from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.image.augment import build_augmentation, pre_resize_edge
from hf_finetune.tasks.image.transforms import (
    ImageTransform,
    NormalizingCollate,
    Size,
    TransformedImages,
    processor_transform,
)
from hf_finetune.tasks.seeded_augmentation import SeededExamples

__all__ = ["prepare_images"]

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def prepare_images(splits: Splits, processor: Any, data: Any, seed: int, *, augmented: bool) -> Inputs:
    """Return augmented training images, and validation images prepared exactly as for inference.

    Args:
        splits: Splits with the columns ``image`` and ``label``.
        processor: Image processor.
        data: ``data`` of the recipe.
        seed: Seed of the run.
        augmented: Whether training images are augmented.
    """
    classes = class_count(splits.train.features)
    eval_transform = ImageTransform(processor_transform(processor), classes, fixed=True)
    train, collate = replace(eval_transform, training=True), default_data_collator
    if augmented:
        preset, transform_list = data.augment.preset, data.augment.transform_list()
        size, mean, std, interpolation = _normalization_settings(processor)
        transform = build_augmentation(preset, data.augment.erase, transform_list, size, mean, interpolation)
        edge = pre_resize_edge(preset, transform_list, size)
        train = ImageTransform(transform, classes, edge=edge, training=True)
        collate = NormalizingCollate(default_data_collator, mean, std)
    return Inputs(
        train=SeededExamples(TransformedImages(splits.train, train), seed),
        validation=None
        if splits.validation is None
        else TransformedImages(splits.validation, eval_transform),
        collate=collate,
    )


def _size(height: int, width: int) -> Size:
    return height if height == width else (height, width)


def _normalization_settings(processor: Any) -> tuple[Size, tuple[float, ...], tuple[float, ...], str]:
    """Return the image size, channel means, channel standard deviations and interpolation of a processor."""
    timm_config = getattr(processor, "data_config", None)
    if timm_config is not None:
        mean, std = tuple(timm_config["mean"]), tuple(timm_config["std"])
        return _size(*timm_config["input_size"][-2:]), mean, std, timm_config["interpolation"]
    shape = getattr(processor, "crop_size", None) or processor.size
    size = _size(shape["height"], shape["width"]) if shape.get("height") else shape["shortest_edge"]
    interpolation = INTERPOLATIONS.get(int(processor.resample), "bicubic")
    return size, tuple(processor.image_mean), tuple(processor.image_std), interpolation
