"""The freezing callback with a stock Trainer, on two processes."""

from itertools import pairwise

import pytest
import torch
from launching import fork_script
from safetensors.torch import load_file
from test_launch import same

# Each process writes its weights, or its error message.
SCRIPT = """
import sys
from itertools import pairwise
from pathlib import Path

import torch
from conftest import make_model
from safetensors.torch import save_file
from torch import distributed
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_finetune import FreezingCallback, parameter_groups
from hf_finetune.distributed import start_processes

way, folder = sys.argv[1], Path(sys.argv[2])
PHASES = {0: "head", 1: "last:1", 2: "all"}
state = start_processes()


class Texts(torch.utils.data.Dataset):
    tokens = torch.randint(4, 15, (16, 7), generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": index % 3}


def make(model, callbacks, optimizers=(None, None), name="run"):
    arguments = TrainingArguments(
        str(folder / name),
        per_device_train_batch_size=2 if state.num_processes > 1 else 4,
        num_train_epochs=3,
        learning_rate=0.01,
        save_strategy="steps",
        save_steps=1,
        ddp_find_unused_parameters=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
        max_grad_norm=0.0,
    )
    return Trainer(model=model, args=arguments, train_dataset=Texts(), callbacks=callbacks, optimizers=optimizers)


def own(model):
    groups = parameter_groups(model, lr={"head": 0.01, "backbone": [1e-4, 1e-3]}, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    shapes = {"head": lambda step: 1.0, "backbone": lambda step: 1 - step / 12}
    return optimizer, LambdaLR(optimizer, [shapes[group["name"]] for group in optimizer.param_groups])


def keep(model, name):
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    save_file(weights, folder / f"{name}-{state.process_index}.safetensors")


class Keep(TrainerCallback):
    def on_epoch_end(self, args, trainer_state, control, **kwargs):
        keep(kwargs["model"], f"epoch-{round(trainer_state.epoch)}")


model = make_model("bert")
try:
    if way == "straight":
        keep(model, "epoch-0")
        make(model, [FreezingCallback(PHASES), Keep()], own(model)).train()
    elif way == "resume":
        for step in (3, 4, 6, 8):
            model = make_model("bert")
            trainer = make(model, [FreezingCallback(PHASES)], own(model), f"resumed-{step}")
            trainer.train(resume_from_checkpoint=str(folder / "run" / f"checkpoint-{step}"))
            keep(model, f"resumed-{step}")
    elif way == "stock":
        make(model, [FreezingCallback(PHASES)], name="stock").train()
        keep(model, "stock")
    elif way == "frozen":
        # frozen before the wrap, by hand: the callback is added behind the Trainer's making
        for parameter in model.bert.parameters():
            parameter.requires_grad_(False)
        trainer = make(model, [], own(model), name="frozen")
        trainer.add_callback(FreezingCallback(PHASES))
        trainer.train()
    elif way == "wrapped":
        # an earlier train() has wrapped the model with nothing but the head; then all is thawed by hand
        trainer = make(model, [FreezingCallback("head")], name="wrapped")
        trainer.train()
        trainer.optimizer, trainer.lr_scheduler = own(model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        trainer.add_callback(FreezingCallback(PHASES))
        trainer.callback_handler.callbacks = [
            one
            for one in trainer.callback_handler.callbacks
            if not (isinstance(one, FreezingCallback) and one.is_single_phase)
        ]
        trainer.train()
except (RuntimeError, ValueError) as error:
    (folder / f"told-{state.process_index}.txt").write_text(f"{type(error).__name__}: {error}")
    raise
if state.num_processes > 1:
    distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("freezing")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def straight(folder, run):
    code, err = run("straight", folder / "straight")
    assert code == 0, err[-4000:]
    return folder / "straight"


@pytest.fixture(scope="module")
def run(folder, tiny_model):
    """Run the script in forked processes."""

    def run(way, place, processes=2):
        place.mkdir(exist_ok=True)
        script = folder / "script.py"
        return fork_script(place, script, way, place, make_model=tiny_model, processes=processes)

    return run


def weights(folder, name, rank):
    return load_file(folder / f"{name}-{rank}.safetensors")


def test_processes_stay_bit_equal_in_all_phases_and_each_phase_changes_its_parameters(straight):
    """Trap 9: after unfreezing in a callback, the ranks of a stock DDP run diverge silently."""
    states = []
    for epoch in range(4):
        first, second = (weights(straight, f"epoch-{epoch}", rank) for rank in (0, 1))
        assert same(first, second), epoch
        states.append(first)
    moved = [
        {name for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(states)
    ]
    head = {"classifier.weight", "classifier.bias"}
    assert moved[0] == head
    # the gradient of a key's bias is only rounding
    last = {name for name in states[0] if ".layer.1." in name or "pooler" in name} | head
    assert moved[1] - last == set() and {name for name in last - moved[1] if "key.bias" not in name} == set()
    assert {name for name in states[0].keys() - moved[2] if "key.bias" not in name} == set()


def test_two_processes_train_as_one_does_at_the_same_global_batch(straight, tmp_path, run):
    code, err = run("straight", tmp_path / "one", processes=1)
    assert code == 0, err[-4000:]
    one, two = weights(tmp_path / "one", "epoch-1", 0), weights(straight, "epoch-1", 0)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)


def test_a_run_on_two_processes_resumes_bit_for_bit_in_a_phase_and_at_its_border(straight, run):
    code, err = run("resume", straight)
    assert code == 0, err[-4000:]
    for step in (3, 4, 6, 8):
        for rank in (0, 1):
            assert same(weights(straight, f"resumed-{step}", rank), weights(straight, "epoch-3", 0)), (
                step,
                rank,
            )


def test_the_stock_optimizer_stays_in_step_too(tmp_path, run):
    code, err = run("stock", tmp_path)
    assert code == 0, err[-4000:]
    assert same(*(weights(tmp_path, "stock", rank) for rank in (0, 1)))


def test_a_model_that_was_wrapped_while_it_was_frozen_is_an_error_before_it_trains(tmp_path, run):
    assert run("frozen", tmp_path)[0] != 0
    told = {(tmp_path / f"told-{rank}.txt").read_text() for rank in (0, 1)}
    assert told == {
        "ValueError: Every parameter that the callback trains from epoch 1 must require a gradient when the model is "
        "wrapped for distributed training. 18 did not (first: 'bert.encoder.layer.1.attention.self.query.weight'). "
        "Pass the callback to the constructor of a new Trainer, and do not freeze these parameters."
    }


def test_an_old_wrapper_that_leaves_gradients_unshared_is_an_error_at_the_first_step_that_shows_it(
    tmp_path, run
):
    assert run("wrapped", tmp_path)[0] != 0
    told = {(tmp_path / f"told-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1
    text = told.pop()
    assert text.startswith(
        "RuntimeError: Gradients must be equal in all processes. From epoch 1 on they differ for "
    )
    assert text.endswith(
        "which were frozen when the model was wrapped for distributed training. Pass this callback to the constructor "
        "of a new Trainer."
    )
