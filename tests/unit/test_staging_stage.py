"""A stage's files: its folder, and weights that are whole or not there."""

from pathlib import Path

import pytest
import torch

from hf_finetune.staging.stage import load_weights, save_weights, stage_folder


def test_each_stage_has_its_own_folder():
    """Trap 15: stages that share an output directory pick up each other's checkpoints."""
    folders = [stage_folder(Path("RUN"), index, name) for index, name in enumerate(["head", "all", "head"])]
    assert folders == [Path("RUN/stages/01-head"), Path("RUN/stages/02-all"), Path("RUN/stages/03-head")]


@pytest.mark.parametrize("name", ["vit", "timm/test_resnet", "albert", "bert"])
def test_weights_come_back_bit_for_bit(tmp_path, tiny_model, name):
    model = tiny_model(name)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_weights(model, tmp_path / "model.safetensors")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_weights(model, tmp_path / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_of_another_model_are_not_loaded(tmp_path, tiny_model):
    save_weights(tiny_model("bert"), tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError):
        load_weights(tiny_model("bert", num_hidden_layers=3), tmp_path / "model.safetensors")


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path, tiny_model, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def full(model, name):
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_finetune.staging.stage.save_model", full)
    with pytest.raises(OSError):
        save_weights(tiny_model("bert"), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
