"""Weights of a checkpoint that are not finite are reported before training."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_finetune.errors import InputError
from hf_finetune.models.build import build_model, read_config
from hf_finetune.models.checkpoint_weights import check_finite_weights
from hf_finetune.tasks import TASKS

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
REPAIR = "Download or copy it again, or use another checkpoint: training cannot repair it."


def build(folder):
    return build_model(
        str(folder), read_config(str(folder), ["a", "b"], "single_label"), task=TASKS["text-classification"]
    )


def spoil(model, name, value):
    with torch.no_grad():
        dict([*model.named_parameters(), *model.named_buffers()])[name].view(-1)[5] = value


@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "inf")]
)
def test_the_tensor_and_its_file_are_reported(value, word, tmp_path, tiny_model):
    model = tiny_model("bert").bert  # their names lack the prefix of the classifier
    spoil(model, QUERY.removeprefix("bert."), value)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError) as error:
        build(tmp_path)
    assert str(error.value) == (
        f"model.path must contain finite weights. Got {word} in {QUERY} of model.safetensors. {REPAIR}"
    )


def test_with_several_files_the_right_one_is_reported(tmp_path, tiny_model):
    model = tiny_model("bert").bert
    spoil(model, QUERY.removeprefix("bert."), float("nan"))
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    (file,) = [
        file.name
        for file in tmp_path.glob("*.safetensors")
        if any(torch.isnan(tensor).any() for tensor in load_file(file).values())
    ]
    with pytest.raises(InputError) as error:
        build(tmp_path)
    assert f"Got nan in {QUERY} of {file}. " in str(error.value)


def test_several_tensors_are_counted(tiny_model):
    model = tiny_model("bert")
    for name in (QUERY, "bert.embeddings.LayerNorm.bias"):
        spoil(model, name, float("nan"))
    with pytest.raises(InputError) as error:
        check_finite_weights("some/model", model)
    assert str(error.value) == (
        "model.path must contain finite weights. Got nan in bert.embeddings.LayerNorm.bias, and in 1 more weight. "
        f"{REPAIR}"
    )


def test_statistics_of_batches_count_and_masks_do_not(tiny_model):
    model = tiny_model("resnet")
    name = next(name for name, _ in model.named_buffers() if name.endswith("running_mean"))
    spoil(model, name, float("-inf"))
    check_finite_weights("some/model", model)
    spoil(model, name, float("nan"))
    with pytest.raises(InputError, match=f"nan in {name}"):
        check_finite_weights("some/model", model)


def test_a_head_that_is_replaced_may_be_broken(tmp_path, tiny_model):
    tiny_model("bert").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["classifier.weight"][:] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert build(tmp_path).model.classifier.weight.isfinite().all()


def test_enormous_finite_weights_are_no_fault(tiny_model):
    model = tiny_model("bert")
    with torch.no_grad():
        model.get_parameter(QUERY).fill_(3e38)
    check_finite_weights("some/model", model)
