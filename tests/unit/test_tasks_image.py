"""The sizes of images: training, validation and inference."""

import pytest
import torch
from data_helpers import prepare_data
from transformers import ViTImageProcessor

from hf_finetune.models.build import load_processor, read_config
from hf_finetune.recipe.data import DataSpec
from hf_finetune.tasks import MODALITIES, TASKS

TASK = TASKS["image-classification"]


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"augment": "standard"}, 32),
        ({"augment": "standard", "image_size": 48}, 48),
        ({"augment": "none", "image_size": 48, "crop_pct": 1.0}, 48),
    ],
    ids=["the checkpoint's", "another", "without chance"],
)
def test_images_come_in_the_sizes_of_the_recipe(squares, timm_checkpoint, fields, size):
    data = prepare_data(str(squares), modality=MODALITIES["image"], validation=0.2, test=0.2)
    config = read_config(str(timm_checkpoint), data.label_names, "single_label")
    processor = load_processor(str(timm_checkpoint), MODALITIES["image"])
    spec = DataSpec(path=str(squares), **fields)
    TASK.modality.configure(processor, config, spec, None)
    inputs = TASK.prepare(data, processor, spec, seed=0)
    assert inputs.train[0]["pixel_values"].shape == (3, size, size)
    assert inputs.validation[0]["pixel_values"].shape == (3, size, size)
    assert TASK.modality.synthetic_batch(processor)["pixel_values"].shape == (1, 3, size, size)
    assert config.pretrained_cfg["crop_pct"] == fields.get("crop_pct", 0.95)


def test_images_without_augmentation_are_prepared_as_for_inference(squares, timm_checkpoint):
    """Augmented images become floats in their batch, on the processor's scale; the processor converts the others."""
    data = prepare_data(str(squares), modality=MODALITIES["image"], validation=0.2, test=0.2)
    processor = load_processor(str(timm_checkpoint), MODALITIES["image"])
    plain, light = (
        TASK.prepare(data, processor, DataSpec(path=str(squares), augment=augment), seed=0)
        for augment in ("none", "light")
    )
    for inputs, examples, rows in [
        (plain, plain.train, data.train),
        (plain, plain.validation, data.validation),
        (light, light.validation, data.validation),
    ]:
        expected = torch.stack([processor(rows[index]["image"])["pixel_values"][0] for index in range(4)])
        batch = inputs.collate([examples[index] for index in range(4)])
        assert torch.equal(batch["pixel_values"], expected)
        assert batch["labels"].tolist() == rows["label"][:4]
    # each square has one color, which neither crop nor mirror changes
    batch = light.collate([light.train[index] for index in range(4)])["pixel_values"]
    assert light.train[0]["pixel_values"].dtype == torch.uint8
    expected = torch.stack([plain.train[index]["pixel_values"] for index in range(4)])
    assert torch.allclose(batch, expected, atol=1e-5)


@pytest.mark.parametrize("preset", ["light", "strong", "seeds", "trivial"])
def test_training_images_have_the_shape_of_a_model_that_is_not_square(squares, preset):
    data = prepare_data(str(squares), modality=MODALITIES["image"], validation=0.2, test=0.2)
    processor = ViTImageProcessor(size={"height": 48, "width": 32})
    spec = DataSpec.model_validate({"path": str(squares), "augment": preset})
    inputs = TASK.prepare(data, processor, spec, seed=0)
    assert inputs.train[0]["pixel_values"].shape == (3, 48, 32)
    assert inputs.validation[0]["pixel_values"].shape == (3, 48, 32)
