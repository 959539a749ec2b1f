"""Checkpoints whose config or processor is missing, or cannot be read."""

import json
import shutil

import pytest
from evaluation_helpers import save_bert, save_vit

from hf_finetune.errors import InputError
from hf_finetune.models.build import build_skeleton, load_processor, read_config
from hf_finetune.tasks import MODALITIES, TASKS

NAMES = ["cake", "soup", "tea"]


def change_settings(path, settings):
    """Set fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    "settings, repair",
    [
        (
            {"id2label": ["cake", "soup"]},
            'id2label must be a mapping such as {"0": "cake", "1": "soup"}. Got a list.',
        ),
        ({"architectures": [3]}, "architectures must be a list of class names. Got [3]."),
        (
            {"num_hidden_layers": 10**9},
            "num_hidden_layers must be a number of layers, at most 10,000. Got 1,000,000,000.",
        ),
        (
            {"hidden_size": "16"},
            "a setting has an invalid value: Validation error for field 'hidden_size': TypeError: "
            "Field 'hidden_size' expected int, got str (value: '16')",
        ),
        (
            {"dtype": "float99"},
            "a setting has an invalid value: module 'torch' has no attribute 'float99'",
        ),
    ],
)
def test_a_config_with_a_value_of_another_type_is_an_error(tmp_path, tiny_model, settings, repair):
    tiny_model("bert").save_pretrained(tmp_path)
    change_settings(tmp_path / "config.json", settings)
    with pytest.raises(InputError) as caught:
        read_config(str(tmp_path), NAMES, "single_label")
    assert str(caught.value).endswith(f"Its config.json cannot be read: {repair}")


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"hidden_act": "gelo"}, "KeyError: 'gelo'"),
        ({"vocab_size": -1}, "RuntimeError: Trying to create tensor with negative dimension -1: [-1, 16]"),
        (
            {"num_attention_heads": 7},
            "ValueError: The hidden size (16) is not a multiple of the number of attention",
        ),
    ],
)
def test_a_config_that_no_model_can_be_built_from_is_an_error(tmp_path, tiny_model, settings, reason):
    tiny_model("bert").save_pretrained(tmp_path)
    change_settings(tmp_path / "config.json", settings)
    with pytest.raises(InputError) as caught:
        build_skeleton(read_config(str(tmp_path), NAMES, "single_label"), TASKS["text-classification"])
    rule = "model.path must have a config.json from which a model can be built"
    assert str(caught.value).startswith(f"{rule}. Got {str(tmp_path)!r}. {reason}")


@pytest.mark.parametrize(
    "file, content, modality, reason",
    [
        ("tokenizer_config.json", "[]", "text", "AttributeError: 'list' object has no attribute 'get'"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "BertTokenizer", "model_max_length": "long"}',
            "text",
            "TypeError: '<' not supported between instances of 'str' and 'int'",
        ),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "BertTokenizer", "model_max_length": -1}',
            "text",
            "ValueError: model_max_length must be a whole number of at least 3, not -1",
        ),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "BertTokenizer", "model_max_length": 12.5}',
            "text",
            "ValueError: model_max_length must be a whole number of at least 3, not 12.5",
        ),
        ("tokenizer.json", "[]", "text", "TypeError: 'str' object cannot be interpreted as an integer"),
        (
            "preprocessor_config.json",
            '{"image_processor_type": "ViTImageProcessor", "size": {"height": -4, "width": 32}}',
            "image",
            "RuntimeError: Input and output sizes should be greater than 0",
        ),
        ("preprocessor_config.json", "[]", "image", "AttributeError: 'list' object has no attribute 'get'"),
    ],
)
def test_a_processor_with_settings_that_cannot_be_is_an_error(tmp_path, file, content, modality, reason):
    save_bert(tmp_path) if modality == "text" else save_vit(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError) as caught:
        load_processor(str(tmp_path), MODALITIES[modality])
    kind = "a tokenizer" if modality == "text" else "an image processor"
    message = str(caught.value)
    assert message.startswith(f"model.path must be a checkpoint with {kind} that can be loaded.")
    assert file in message and reason in message


def test_a_checkpoint_without_a_processor_is_an_error(tmp_path, tiny_model, timm_checkpoint):
    tiny_model("vit").save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        load_processor(str(tmp_path), MODALITIES["image"])
    assert str(caught.value) == (
        f"model.path must be a checkpoint with an image processor. Got {str(tmp_path)!r}. "
        "It lacks preprocessor_config.json."
    )
    shutil.copytree(timm_checkpoint, tmp_path / "timm")
    with pytest.raises(InputError) as caught:
        load_processor(str(tmp_path / "timm"), MODALITIES["text"])
    assert str(caught.value) == (
        f"model.path must be a checkpoint with a tokenizer. Got {str(tmp_path / 'timm')!r}. "
        "It lacks tokenizer.json."
    )
