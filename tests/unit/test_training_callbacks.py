"""The callbacks with a stock Trainer."""

import json
import math
import os
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_finetune.errors import InputError
from hf_finetune.models.layout import head_names
from hf_finetune.training.callbacks import DivergedError, InterruptCallback, LogCallback
from hf_finetune.training.freezing_callback import FreezingCallback

PHASES = {0: "head", 1: "all"}


class Pictures(torch.utils.data.Dataset):
    def __init__(self, count=8):
        generator = torch.Generator().manual_seed(1)
        self.pixels = torch.randn(count, 3, 32, 32, generator=generator)
        self.labels = torch.randint(0, 3, (count,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


class Snapshots(TrainerCallback):
    """Record the state of the model at the start and at the end of each epoch."""

    def __init__(self):
        self.states = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.on_epoch_end(args, state, control, **kwargs)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.states.append({name: value.clone() for name, value in kwargs["model"].state_dict().items()})

    def changes(self):
        return [
            {name for name in before if not torch.equal(before[name], after[name])}
            for before, after in zip(self.states, self.states[1:], strict=False)
        ]


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def stock(model, folder, callbacks, epochs=2, optimizers=(None, None), **options):
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": epochs,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **options,
    }
    train_dataset = arguments.pop("train_dataset", None) or Pictures()
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=train_dataset,
        eval_dataset=Pictures(4),
        callbacks=callbacks,
        optimizers=optimizers,
    )


@pytest.mark.parametrize("name", ["timm/test_resnet", "resnet", "vit"])
def test_each_epoch_changes_exactly_the_parameters_of_its_phase(tmp_path, tiny_model, name):
    """Traps 1, 2 and 7: setting requires_grad later trains nothing, and frozen BatchNorms drift."""
    model = tiny_model(name)
    snapshots = Snapshots()
    stock(model, tmp_path, [FreezingCallback({0: "head", 2: "all"}), snapshots], epochs=3).train()
    first, second, third = snapshots.changes()
    assert first == second == set(head_names(model))
    expected = set(model.state_dict()) - {"vit.embeddings.mask_token"}
    # a key's bias has no gradient in attention: the softmax does not depend on it
    assert {
        name for name in expected - third if "key.bias" not in name and "k_proj.bias" not in name
    } == set()


def test_a_phase_can_freeze_again(tmp_path, tiny_model):
    model = tiny_model("timm/test_resnet")
    snapshots = Snapshots()
    stock(model, tmp_path, [FreezingCallback({0: "all", 1: "head"}), snapshots]).train()
    first, second = snapshots.changes()
    assert first == set(model.state_dict())
    assert second == set(head_names(model))


def test_a_single_selector_freezes_before_the_optimizer_is_made(tmp_path, tiny_model):
    """Trap 4: on_init_end has the model while the optimizer is still None."""
    model = tiny_model("timm/test_resnet")
    snapshots = Snapshots()
    trainer = stock(model, tmp_path, [FreezingCallback("last:1"), snapshots], epochs=1)
    trainer.train()
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in held}
    assert names == {name for name, _ in model.named_parameters() if "layer4" in name or "fc" in name}
    buffers = {name for name, _ in model.named_buffers() if "layer4" in name}
    assert snapshots.changes() == [names | buffers]


@pytest.mark.slow
def test_a_resumed_run_continues_in_its_phase(tmp_path, tiny_model):
    """Trap 16: a callback's state is not restored; the phase must follow from the Trainer's."""
    whole = tiny_model("timm/test_resnet")
    stock(
        whole, tmp_path / "whole", [FreezingCallback(PHASES)], epochs=3, save_strategy="steps", save_steps=1
    ).train()
    for step in (1, 2, 3, 4):
        model = tiny_model("timm/test_resnet")
        folder = tmp_path / f"stopped-{step}"
        options = {"epochs": 3, "save_strategy": "steps", "save_steps": 1}
        with pytest.raises(KeyboardInterrupt):
            stock(model, folder, [FreezingCallback(PHASES), StopAt(step)], **options).train()
        model = tiny_model("timm/test_resnet")
        resumed = stock(model, folder, [FreezingCallback(PHASES)], **options)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert all(
            torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items()
        ), step


MISUSE = (
    "The optimizer must contain every parameter that the callback trains from epoch 1. It lacks {count} "
    "(first: {first!r}). Pass the callback to the Trainer's constructor, so that the optimizer is created after it, "
    "or add these parameters to your own optimizer."
)


@pytest.mark.defends(
    "hf_finetune.training.freezing_callback:_check_optimizer",
    why="An optimizer without the parameters that a phase trains is an error",
)
def test_an_optimizer_without_parameters_of_a_later_phase_is_an_error(tmp_path, tiny_model):
    model = tiny_model("timm/test_resnet")
    own = torch.optim.SGD([model.get_parameter(name) for name in head_names(model)], lr=0.1)
    trainer = stock(model, tmp_path, [FreezingCallback(PHASES)], optimizers=(own, None))
    with pytest.raises(ValueError) as caught:
        trainer.train()
    count = len(list(model.parameters())) - 2
    assert str(caught.value) == MISUSE.format(count=count, first="timm_model.conv1.0.weight")


@pytest.mark.defends("hf_finetune.training.freezing_callback:_check_optimizer")
def test_a_callback_that_comes_after_the_optimizer_is_an_error(tmp_path, tiny_model):
    model = tiny_model("timm/test_resnet")
    trainer = stock(model, tmp_path, [FreezingCallback("head")])
    trainer.create_optimizer()
    trainer.add_callback(FreezingCallback(PHASES))
    with pytest.raises(ValueError) as caught:
        trainer.train()
    count = len(list(model.parameters())) - 2
    assert str(caught.value) == MISUSE.format(count=count, first="timm_model.conv1.0.weight")


def test_phases_begin_at_the_first_epoch():
    with pytest.raises(ValueError) as caught:
        FreezingCallback({2: "all", 1: "head"})
    assert str(caught.value) == "phases must begin at epoch 0. Got [1, 2]."


@pytest.mark.parametrize(("phases", "place"), [("headd", "train"), ({0: "head", 1: "headd"}, "phases[1]")])
def test_an_invalid_selector_is_an_error_with_its_location(tmp_path, tiny_model, phases, place):
    with pytest.raises(InputError) as caught:
        stock(tiny_model("timm/test_resnet"), tmp_path, [FreezingCallback(phases)])
    assert str(caught.value) == (
        f"{place} must be a valid selector. Got 'headd'. Nearest: 'head'. "
        "Valid: head, all, norms, biases, last:N, layers[A:B], /regular expression/."
    )


def test_the_log_contains_the_rate_of_every_group(tmp_path, tiny_model):
    """Trap 18: transformers 5.23 logs the rate of the first group only."""
    model = tiny_model("timm/test_resnet")
    head = [model.get_parameter(name) for name in head_names(model)]
    rest = [p for name, p in model.named_parameters() if name not in head_names(model)]
    own = torch.optim.SGD([{"params": head, "lr": 0.1}, {"params": rest, "lr": 0.01}])
    log = LogCallback(tmp_path / "log.jsonl", ["head", "conv1..layer4.0"], "all")
    stock(model, tmp_path, [log], epochs=1, optimizers=(own, None)).train()
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2]
    assert [entry["learning_rates"] for entry in steps] == [
        [["head", 0.1], ["conv1..layer4.0", 0.01]],
        [["head", 0.05], ["conv1..layer4.0", 0.005]],
    ]
    assert "train_loss" in entries[-1] and "learning_rates" not in entries[-1]


def suppress_divergence(original, *arguments, **options):
    """The error is suppressed."""
    with suppress(DivergedError):
        original(*arguments, **options)


@pytest.mark.defends(
    "hf_finetune.training.callbacks:LogCallback.on_log",
    why="A loss that is not finite ends the stage",
    by=suppress_divergence,
    ids=["nan"],
)
@pytest.mark.defends(
    "hf_finetune.training.callbacks:LogCallback.on_epoch_end", why="No diverged model is saved", ids=["nan"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_before_a_checkpoint(tmp_path, tiny_model, value):
    class Broken(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    kwargs["model"].timm_model.fc.bias.fill_(value)

    trainer = stock(
        tiny_model("timm/test_resnet"),
        tmp_path,
        [LogCallback(tmp_path / "log.jsonl", ["head", "rest"], "head"), Broken()],
        save_strategy="epoch",
        logging_steps=100,
        logging_nan_inf_filter=False,
    )
    with pytest.raises(DivergedError) as caught:
        trainer.train()
    assert str(caught.value) == (
        "Stage 'head' diverged: the loss is nan at step 4. In a new run lower its lr."
    )
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({}, "lower its lr."),
        ({"max_grad_norm": 0.0}, "lower its lr or set clip."),
        ({"max_grad_norm": 0.0, "bf16": True}, "lower its lr or set clip or use fp32."),
        ({"fp16": True}, "lower its lr or use fp32."),
    ],
)
def test_the_message_suggests_only_settings_that_the_stage_does_not_have(tmp_path, settings, remedy):
    arguments = SimpleNamespace(**{"max_grad_norm": 1.0, "fp16": False, "bf16": False} | settings)
    state = SimpleNamespace(is_world_process_zero=True, global_step=3, log_history=[{"loss": math.nan}])
    with pytest.raises(DivergedError) as caught:
        LogCallback(tmp_path / "log.jsonl", [], "head").on_log(arguments, state, None)
    assert str(caught.value).endswith(f"In a new run {remedy}")


@pytest.mark.parametrize("fp16", [False, True])
def test_gradients_without_a_norm_stop_training_but_in_fp16(tmp_path, fp16):
    callback = LogCallback(tmp_path / "log.jsonl", ["head"], "head")
    arguments = SimpleNamespace(fp16=fp16, bf16=False)
    state = SimpleNamespace(is_world_process_zero=True, global_step=3, log_history=[{"grad_norm": math.inf}])
    if fp16:
        callback.on_log(arguments, state, None)
    else:
        with pytest.raises(DivergedError) as caught:
            callback.on_log(arguments, state, None)
        assert str(caught.value) == (
            "Stage 'head' diverged: the gradient norm is inf at step 3. Check the checkpoint for extreme weights: "
            "hf-finetune doctor."
        )
        arguments.bf16 = True
        with pytest.raises(
            DivergedError, match=r"at step 3\. Start a new run with fp32, and check the checkpoint"
        ):
            callback.on_log(arguments, state, None)
    assert "Infinity" in (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    state.log_history = [{"grad_norm": 2.0, "step": 3}, {"eval_loss": 1.0}]
    callback.on_log(arguments, state, None)


class SignalAt(TrainerCallback):
    def __init__(self, step, number=signal.SIGINT, times=1):
        self.step, self.number, self.times = step, number, times
        self.after = False

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
            self.after = True


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.defends(
    "hf_finetune.training.callbacks:InterruptCallback.on_train_begin",
    why="Ctrl-C finishes the step and saves",
    ids=["2"],
)
@pytest.mark.defends(
    "hf_finetune.training.callbacks:InterruptCallback.restore", why="Signal handlers are restored", ids=["2"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_finishes_the_step_and_saves(tmp_path, tiny_model, handlers, number):
    interrupt, asking = InterruptCallback(), SignalAt(0, number)
    trainer = stock(tiny_model("timm/test_resnet"), tmp_path, [asking, interrupt])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert asking.after
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["global_step"] == 1
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_the_second_interrupt_stops_at_once(tmp_path, tiny_model, handlers):
    interrupt, asking = InterruptCallback(), SignalAt(0, times=2)
    trainer = stock(tiny_model("timm/test_resnet"), tmp_path, [asking, interrupt])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not asking.after
    assert not list(tmp_path.glob("checkpoint-*"))
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_without_an_interrupt_nothing_is_saved_or_stopped(tmp_path, tiny_model):
    trainer = stock(tiny_model("timm/test_resnet"), tmp_path, [InterruptCallback()], epochs=1)
    trainer.train()
    assert trainer.state.global_step == 2
    assert not list(tmp_path.glob("checkpoint-*"))


def test_an_interrupt_in_the_last_step_of_an_epoch_waits_for_its_evaluation(tmp_path, tiny_model, handlers):
    trainer = stock(
        tiny_model("timm/test_resnet"),
        tmp_path,
        [SignalAt(1), InterruptCallback()],
        save_strategy="epoch",
        eval_strategy="epoch",
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry] == [2]
