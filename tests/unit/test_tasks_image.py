"""The sizes of images: training, validation and inference."""

import pytest

from hf_finetune.data.prepare import prepare_data
from hf_finetune.models.build import load_processor, read_config
from hf_finetune.recipe.schema import DataSpec
from hf_finetune.tasks import TASKS

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
    data = prepare_data(str(squares), modality="image", validation=0.2, test=0.2)
    config = read_config(str(timm_checkpoint), data.label_names, "single_label")
    processor = load_processor(str(timm_checkpoint), "image")
    spec = DataSpec(path=str(squares), **fields)
    TASK.configure(processor, config, spec)
    inputs = TASK.prepare(data, processor, spec, seed=0)
    assert inputs.train[0]["pixel_values"].shape == (3, size, size)
    assert inputs.validation[0]["pixel_values"].shape == (3, size, size)
    assert TASK.dummy(processor)["pixel_values"].shape == (1, 3, size, size)
    assert config.pretrained_cfg["crop_pct"] == fields.get("crop_pct", 0.95)
