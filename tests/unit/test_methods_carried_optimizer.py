"""The optimizer's state, carried from one stage's Trainer to the next by the names of the parameters."""

import pytest
import torch
from test_training_trainer import make_trainer
from transformers import TrainerCallback

from hf_finetune.errors import InputError
from hf_finetune.methods.carried_optimizer import CarriedOptimizer, load_state, optimizer_state, save_state
from hf_finetune.models.layout import head_names


class FirstStep(TrainerCallback):
    """Record the optimizer's state by parameter name before the first step."""

    state = None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.state is None:
            names = {id(parameter): name for name, parameter in kwargs["model"].named_parameters()}
            held = kwargs["optimizer"].state
            self.state = {
                names[id(parameter)]: {key: clone(value) for key, value in values.items()}
                for parameter, values in held.items()
            }


def clone(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.keys() == other[name].keys()
        for key, value in values.items():
            same = (
                torch.equal(value, other[name][key]) if torch.is_tensor(value) else value == other[name][key]
            )
            assert same, f"{name} {key}"


def stage(model, folder, train, watch, carried=None, optim="adamw_torch", **options):
    trainer = make_trainer(
        model,
        folder,
        6,
        train=train,
        groups={"lr": 0.02, "layer_decay": 0.5},
        methods=[CarriedOptimizer(carried or {})],
        callbacks=[watch],
        per_device_train_batch_size=2,
        max_steps=3,
        optim=optim,
        **options,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor", "rmsprop", "adagrad"])
def test_the_state_equals_that_of_the_previous_stage_and_new_parameters_have_none(
    tmp_path, tiny_model, optim
):
    model = tiny_model("bert")
    first = stage(model, tmp_path / "1", "last:1", FirstStep(), optim=optim)
    expected = optimizer_state(first.optimizer, first.planned_groups)
    assert set(expected) == {name for group in first.planned_groups for name in group.parameters}
    save_state(expected, tmp_path / "optimizer.pt")
    names = [name for name, _ in model.named_parameters()]
    watch = FirstStep()
    stage(model, tmp_path / "2", "all", watch, load_state(tmp_path / "optimizer.pt", names), optim)
    fresh = {} if optim != "adagrad" else {name: watch.state[name] for name in names if name not in expected}
    assert all(not values["step"] and not values["sum"].any() for values in fresh.values())
    assert_same({name: values for name, values in watch.state.items() if name not in fresh}, expected)
    without = FirstStep()
    stage(tiny_model("bert"), tmp_path / "3", "all", without, optim=optim)
    moments = [
        value for values in without.state.values() for value in values.values() if torch.is_tensor(value)
    ]
    assert not any(value.any() for value in moments)


def test_only_listed_files_are_read(tmp_path, tiny_model):
    model = tiny_model("bert")
    trainer = stage(model, tmp_path, "last:1", FirstStep())
    save_state(optimizer_state(trainer.optimizer, trainer.planned_groups), tmp_path / "optimizer.pt")
    head = head_names(model)
    assert set(load_state(tmp_path / "optimizer.pt", [*head, "bert.embeddings.LayerNorm.weight"])) == set(
        head
    )


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "optimizer.pt"
    path.write_bytes(b"old")

    def full(state, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_finetune.methods.carried_optimizer.torch.save", full)
    with pytest.raises(OSError):
        save_state({}, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["optimizer.pt"]


@pytest.mark.parametrize(
    "content, value",
    [
        (b"no tensors", "UnpicklingError"),
        (b"", "EOFError"),
        ([1, 2], "a list"),
        ({"head.weight": 3}, "not a mapping from parameter names to optimizer state"),
        (None, "FileNotFoundError"),
    ],
)
def test_an_invalid_state_is_reported_with_its_file(tmp_path, content, value):
    path = tmp_path / "optimizer.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as error:
        load_state(path, ["head.weight"])
    assert str(error.value) == (
        f"{path} must contain the saved training state as tensors. Got {value}. Restore the file from a "
        "copy of the "
        "run directory, or start a new run."
    )
