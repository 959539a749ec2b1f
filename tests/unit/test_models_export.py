"""Saved models load in plain transformers and plain timm, with the same logits."""

import json

import pytest
import timm
import torch
from PIL import Image, ImageOps
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoTokenizer,
    BitImageProcessor,
    ConvNextImageProcessor,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from hf_finetune.doctor.checkpoint import realign_weights
from hf_finetune.errors import InputError
from hf_finetune.models.build import build_model, load_processor, read_config
from hf_finetune.models.export import export_model
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.image.processor import set_image_size
from hf_finetune.tasks.image.transforms import processor_transform

PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
LABELS = ["tea", "soup", "cake", "pie"]


def square_processor(size):
    return ViTImageProcessor(size={"height": size, "width": size})


def gray(size=(100, 70)):
    return Image.new("RGB", size, (120, 120, 120))


def framed():
    """A light square with a black border of 4 of its 64 pixels."""
    return ImageOps.expand(Image.new("RGB", (56, 56), (200, 200, 200)), 4)


def build(path, dropout=None):
    config = read_config(str(path), LABELS, "single_label", dropout=dropout)
    return build_model(str(path), config, task=TASKS["image-classification"]).model.eval(), load_processor(
        str(path), MODALITIES["image"]
    )


@pytest.mark.parametrize("dropout", [None, 0.25])
def test_a_timm_classifier_loads_both_ways(tmp_path, timm_checkpoint, dropout):
    """Trap 22: transformers 5.23 saves ``model_args: null``, on which timm 1.0.31 fails."""
    model, processor = build(timm_checkpoint, dropout)
    export_model(model, processor, tmp_path / "model")
    with torch.no_grad():
        expected = realign_weights(model)(PIXELS).logits
        wrapped, info = AutoModelForImageClassification.from_pretrained(
            tmp_path / "model", output_loading_info=True
        )
        torch.testing.assert_close(realign_weights(wrapped)(PIXELS).logits, expected, rtol=0, atol=0)
        plain = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
        torch.testing.assert_close(realign_weights(plain)(PIXELS), expected, rtol=0, atol=0)
    assert not any(info.values())
    assert list(wrapped.config.id2label.values()) == LABELS
    assert plain.num_classes == 4
    for loaded in (wrapped.timm_model, plain):
        assert getattr(loaded, "drop_rate", 0.0) == (dropout or 0.0)
    assert AutoImageProcessor.from_pretrained(tmp_path / "model").data_config["input_size"] == (3, 32, 32)


def test_a_timm_config_without_arguments_loads_both_ways(tmp_path, tiny_model):
    """Trap 22, from a checkpoint whose config has no ``model_args``."""
    model = tiny_model("timm/test_resnet", model_args=None)
    model.save_pretrained(tmp_path / "first")
    export_model(model, load_processor(str(tmp_path / "first"), MODALITIES["image"]), tmp_path / "model")
    assert "model_args" not in json.loads((tmp_path / "model" / "config.json").read_text())
    assert timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).num_classes == 3
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "model").num_labels == 3


def test_a_timm_model_with_positions_for_images_of_another_size_loads_both_ways(tmp_path):
    """timm would resize the position embeddings to the config's size, and compute with others."""
    torch.manual_seed(0)
    known = timm.get_pretrained_cfg("test_vit").to_dict()
    del known["fixed_input_size"]  # as in configs that set no image size
    config = TimmWrapperConfig(architecture="test_vit", pretrained_cfg=known, num_labels=4)
    model = TimmWrapperForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "checkpoint")
    processor = load_processor(str(tmp_path / "checkpoint"), MODALITIES["image"])
    set_image_size(processor, model.config, 96)
    pixels = torch.nn.functional.interpolate(PIXELS, size=96)
    export_model(model, processor, tmp_path / "model")
    with torch.no_grad():
        expected = model(pixels).logits
        plain = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
        assert plain.pos_embed.shape == model.timm_model.pos_embed.shape
        assert torch.equal(realign_weights(plain)(pixels), expected)
        wrapped = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
        assert torch.equal(realign_weights(wrapped)(pixels).logits, expected)


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "swin", "resnet", "convnext"])
def test_published_weights_have_the_names_of_the_hub(tmp_path, tiny_model, name):
    """Trap 14: transformers 5.23 keeps ViT's weights under other names in memory than on the Hub."""
    model = tiny_model(name, num_labels=3)
    export_model(model, square_processor(32), tmp_path / "model")
    loaded, info = AutoModelForImageClassification.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(info.values())
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    model.save_pretrained(tmp_path / "stock")
    ours, stock = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "stock"))
    assert ours == stock


def test_a_text_classifier_loads_in_a_pipeline(tmp_path, bert_checkpoint):
    config = read_config(str(bert_checkpoint), ["bad", "good"], "single_label")
    model = build_model(str(bert_checkpoint), config, task=TASKS["text-classification"]).model.eval()
    export_model(model, load_processor(str(bert_checkpoint), MODALITIES["text"]), tmp_path / "model")
    found = pipeline("text-classification", model=str(tmp_path / "model"), top_k=None)(["good film"])[0]
    with torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
        expected = model(**tokenizer("good film", return_tensors="pt")).logits.softmax(-1)[0]
    scores = {entry["label"]: entry["score"] for entry in found}
    assert scores == pytest.approx({"bad": expected[0].item(), "good": expected[1].item()})


def test_saved_files_are_readable_by_everybody(tmp_path, timm_checkpoint):
    export_model(*build(timm_checkpoint), tmp_path / "model")
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "model").iterdir()} == {0o644}


def test_the_image_size_of_a_timm_checkpoint_is_set_for_training_too(timm_checkpoint):
    """The processor of transformers 5.23 reads the size once, at its creation: changing only the config is too late."""
    config = read_config(str(timm_checkpoint), LABELS, "single_label")
    processor = load_processor(str(timm_checkpoint), MODALITIES["image"])
    set_image_size(processor, config, 48)
    assert config.pretrained_cfg["input_size"] == [3, 48, 48]
    assert processor_transform(processor)(gray()).shape == (3, 48, 48)
    assert tuple(processor.data_config["input_size"]) == (3, 48, 48)


def test_the_image_size_of_a_checkpoint_with_a_square_size():
    processor = square_processor(32)
    set_image_size(processor, None, 48)
    assert processor_transform(processor)(gray()).shape == (3, 48, 48)


def test_the_image_size_of_a_checkpoint_that_crops_keeps_its_crop_fraction():
    processor = BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    set_image_size(processor, None, 112)
    assert (dict(processor.size), dict(processor.crop_size)) == (
        {"shortest_edge": 128},
        {"height": 112, "width": 112},
    )
    assert processor_transform(processor)(gray((300, 200))).shape == (3, 112, 112)


def test_the_crop_of_a_timm_checkpoint_is_set(timm_checkpoint):
    """The border of an image is kept at 1 and cut off at 0.5, also by other loaders of the saved config."""
    config = read_config(str(timm_checkpoint), LABELS, "single_label")
    processor = load_processor(str(timm_checkpoint), MODALITIES["image"])
    seen = {}
    for crop_pct in (1.0, 0.5):
        set_image_size(processor, config, 32, crop_pct)
        seen[crop_pct] = processor_transform(processor)(framed()).amin(dim=(0, 1)).tolist()
    assert config.pretrained_cfg["crop_pct"] == 0.5
    assert seen[1.0][0] < min(seen[0.5]) == seen[0.5][0]


@pytest.mark.parametrize(
    "processor",
    [
        BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 32, "width": 32}),
        ConvNextImageProcessor(size={"shortest_edge": 32}),
    ],
    ids=["bit", "convnext"],
)
def test_the_crop_of_a_checkpoint_of_transformers_is_set(processor):
    seen = {}
    for crop_pct in (1.0, 0.5):
        set_image_size(processor, None, None, crop_pct)
        values = processor_transform(processor)(framed())
        assert values.shape == (3, 32, 32)
        seen[crop_pct] = values.amin(dim=(0, 1)).tolist()
    assert seen[1.0][0] < min(seen[0.5])


def test_a_checkpoint_without_a_crop_ratio_has_no_crop():
    with pytest.raises(InputError) as error:
        set_image_size(square_processor(32), None, None, 0.9)
    assert str(error.value) == (
        "data.crop_pct must not be set for a checkpoint that resizes images without cropping. Got 0.9."
    )


def test_without_an_image_size_the_checkpoints_stays(timm_checkpoint):
    config = read_config(str(timm_checkpoint), LABELS, "single_label")
    before = dict(config.pretrained_cfg)
    processor = load_processor(str(timm_checkpoint), MODALITIES["image"])
    set_image_size(processor, config, None)
    assert config.pretrained_cfg == before
    assert processor_transform(processor)(gray()).shape == (3, 32, 32)
