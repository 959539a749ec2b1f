"""A stage's files: its folder, and weights that are complete or absent."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from removals import ignored_in_a_stage
from stage_helpers import Examples, train_stages

from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.stage_weights import load_weights, save_weights


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


@contextmanager
def write_in_place(original, path):
    """The file is written in place."""
    yield path


@pytest.mark.defends(
    "hf_finetune.files:atomic_file", why="A file is written completely or not at all", by=write_in_place
)
def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path, tiny_model, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def full(model, name):
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_finetune.training.stage_weights.save_model", full)
    with pytest.raises(OSError):
        save_weights(tiny_model("bert"), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.defends(
    "hf_finetune.training.freezing:release_eval_mode",
    why="A model follows `train()` again after its stage",
    by=ignored_in_a_stage,
)
def test_a_model_follows_train_again_after_its_stage(tmp_path, tiny_model):
    model = tiny_model("timm/test_resnet")
    train_stages(model, tmp_path, ["head"])
    assert all(module.training for module in model.train().modules())
    assert not any(module.training for module in model.eval().modules())


class Noted(Examples):
    """Examples that record in which order they were drawn, and the epoch that was set."""

    def __init__(self, model, count):
        super().__init__(model, count)
        self.order, self.epochs, self.epoch = [], [], None

    def __getitem__(self, index):
        self.order.append(index)
        self.epochs.append(self.epoch)
        return super().__getitem__(index)

    def set_epoch(self, epoch):
        self.epoch = epoch


def one_seed(original, **options):
    """One seed for all stages."""
    return original(**{**options, "seed": 42, "data_seed": 42})


@pytest.mark.defends(
    "hf_finetune.training.arguments:TrainingArguments",
    why="The order of the examples follows from the seed of the stage",
    by=one_seed,
)
def test_the_order_of_the_examples_follows_from_the_seed(tmp_path, tiny_model):
    """The helper gives the first stage the seed 0 and the second one 1."""
    orders = []
    for run in ("one", "two"):
        model = tiny_model("bert")
        data = Noted(model, 8)
        train_stages(model, tmp_path / run, ["head", "all"], data=data)
        orders.append((data.order[:8], data.order[8:]))
    assert orders[0] == orders[1]
    first, second = orders[0]
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second


def test_examples_are_drawn_in_the_epoch_that_it_is(tmp_path, tiny_model):
    """Otherwise each would have the same augmentation in all epochs."""
    model = tiny_model("bert")
    data = Noted(model, 8)
    train_stages(model, tmp_path, ["head", "all"], data=data, epochs=3.0)
    assert data.epochs == [epoch for _ in ("head", "all") for epoch in (0, 1, 2) for _ in range(8)]
