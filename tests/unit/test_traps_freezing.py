"""Traps 1 to 8: freezing, the optimizer, BatchNorm and dropout.

Each test first shows the error of the stock libraries, then that the package's safeguard works. If the first
half fails, the libraries have changed, and the safeguard may no longer be needed.
"""

import pytest
import torch
from removals import mode_of_the_module, only_with_parameters
from stage_helpers import (
    Examples,
    Thaw,
    differing,
    freeze_flags,
    optimizer_names,
    state_of,
    stock_trainer,
    train_stages,
)
from torch import nn
from transformers import TrainerCallback

from hf_finetune.errors import InputError
from hf_finetune.models.layout import head_names
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.freezing_callback import FreezingCallback

RESNET = "timm/test_resnet"
HEAD = {"timm_model.fc.weight", "timm_model.fc.bias"}
PHASES = {0: "head", 1: "all"}


def parameters_that_differ(model, before):
    return {name for name in differing(state_of(model), before) if name in dict(model.named_parameters())}


@pytest.mark.defends(
    "hf_finetune.training.freezing_callback:FreezingCallback.on_epoch_begin",
    why="Phases change at the declared epochs",
)
def test_trap_01_layers_that_are_unfrozen_later_are_trained(tmp_path, tiny_model):
    """``create_optimizer`` includes only parameters that require a gradient when training begins."""
    model = tiny_model(RESNET)
    freeze_flags(model, HEAD)
    before = state_of(model)
    stock_trainer(model, tmp_path / "stock", [Thaw()]).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert parameters_that_differ(model, before) == HEAD

    model = tiny_model(RESNET)
    before = state_of(model)
    stock_trainer(model, tmp_path / "ours", [FreezingCallback(PHASES)]).train()
    assert parameters_that_differ(model, before) == {name for name, _ in model.named_parameters()}


def test_trap_02_each_stage_has_its_own_optimizer(tmp_path, tiny_model):
    """A second ``train()`` of the same Trainer keeps the optimizer of the first."""
    model = tiny_model(RESNET)
    freeze_flags(model, HEAD)
    trainer = stock_trainer(model, tmp_path / "stock")
    trainer.train()
    freeze_flags(model, {name for name, _ in model.named_parameters()})
    trainer.train()
    assert {name for names in optimizer_names(trainer) for name in names} == HEAD

    model = tiny_model(RESNET)
    stages, seen = train_stages(model, tmp_path / "ours", ["head", "all"])
    held = [{name for names, _, _ in watch.groups for name in names} for watch in seen]
    assert held == [HEAD, {name for name, _ in model.named_parameters()}]
    assert [set(plan.trainable) for plan in stages] == held


def test_trap_03_phases_never_add_a_parameter_group(tmp_path, tiny_model):
    """``add_param_group`` in a callback breaks the scheduler; with that fixed, the checkpoint cannot be resumed."""

    class AddGroup(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch and state.epoch >= 1:
                rest = [p for p in kwargs["model"].parameters() if not p.requires_grad]
                kwargs["optimizer"].add_param_group(
                    {"params": [p.requires_grad_() for p in rest], "lr": 0.01}
                )

    model = tiny_model(RESNET)
    freeze_flags(model, HEAD)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        stock_trainer(model, tmp_path / "stock", [AddGroup()]).train()

    class Groups(TrainerCallback):
        def __init__(self):
            self.sizes = set()

        def on_step_end(self, args, state, control, **kwargs):
            self.sizes.add(tuple(len(group["params"]) for group in kwargs["optimizer"].param_groups))

    groups, states = Groups(), []
    for checkpoint in (None, str(tmp_path / "ours" / "checkpoint-3")):  # in the second phase
        model = tiny_model(RESNET)
        trainer = stock_trainer(
            model, tmp_path / "ours", [FreezingCallback(PHASES), groups], save_strategy="steps", save_steps=1
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        states.append(state_of(model))
    assert len(groups.sizes) == 1
    assert differing(*states) == set()


@pytest.mark.defends(
    "hf_finetune.training.freezing_callback:FreezingCallback.on_init_end",
    why="A model is frozen before its optimizer is created",
)
def test_trap_04_a_stage_is_frozen_before_its_optimizer_is_made(tmp_path, tiny_model):
    """``on_init_end`` has the model before there is an optimizer; at ``on_train_begin`` it exists already."""

    class Moments(TrainerCallback):
        def __init__(self):
            self.optimizers = {}

        def on_init_end(self, args, state, control, **kwargs):
            self.optimizers["init"] = kwargs["optimizer"]

        def on_train_begin(self, args, state, control, **kwargs):
            self.optimizers["train"] = kwargs["optimizer"]

    model, moments = tiny_model(RESNET), Moments()
    trainer = stock_trainer(model, tmp_path, [moments, FreezingCallback("head")])
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == HEAD
    trainer.train()
    assert moments.optimizers["init"] is None and moments.optimizers["train"] is not None
    assert {name for names in optimizer_names(trainer) for name in names} == HEAD


def skip_single_selector(original, self, model, state):
    """Nothing for a single selector."""
    if not self.is_single_phase:
        original(self, model, state)


@pytest.mark.defends(
    "hf_finetune.training.freezing_callback:FreezingCallback._enter",
    why="A model created by `model_init` is frozen too",
    by=skip_single_selector,
)
def test_trap_05_a_model_that_is_created_for_each_trial_is_frozen_too(tmp_path, tiny_model):
    """With ``model_init`` the Trainer creates a new model at each ``train()``, after ``on_init_end``."""

    class FreezesOnce(TrainerCallback):
        def on_init_end(self, args, state, control, **kwargs):
            freeze_flags(kwargs["model"], HEAD)

    initial = state_of(tiny_model(RESNET))
    data = Examples(tiny_model(RESNET), 8)
    everything = {name for name, _ in tiny_model(RESNET).named_parameters()}
    for callback, moved in ((FreezesOnce(), everything), (FreezingCallback("head"), HEAD)):
        trainer = stock_trainer(lambda: tiny_model(RESNET), tmp_path, [callback], data=data)
        models = [trainer.model]
        for _ in range(2):
            trainer.train()
            models.append(trainer.model)
            assert parameters_that_differ(trainer.model, initial) == moved
        assert len({id(model) for model in models}) == 3
    assert differing(initial, state_of(trainer.model)) == HEAD  # nor did any statistic of a BatchNorm


def accept_empty(original, model, trainable):
    """No error for an empty list."""
    if trainable:
        original(model, trainable)


@pytest.mark.defends(
    "hf_finetune.training.freezing:freeze_all_but", why="Freezing everything is an error", by=accept_empty
)
def test_trap_06_a_stage_always_trains_something_and_has_no_empty_group(tmp_path, tiny_model):
    """With all frozen the backward pass fails; with only biases trained the first group is empty."""
    model = tiny_model(RESNET)
    freeze_flags(model, ())
    with pytest.raises((RuntimeError, ValueError)) as stock:
        stock_trainer(model, tmp_path / "frozen").train()
    assert "freez" not in str(stock.value) and "trainable" not in str(stock.value)
    freeze_flags(model, {name for name, _ in model.named_parameters() if name.endswith("bias")})
    trainer = stock_trainer(model, tmp_path / "biases")
    trainer.create_optimizer()
    assert [len(names) > 0 for names in optimizer_names(trainer)] == [False, True]

    with pytest.raises(ValueError) as caught:
        freeze_all_but(model, ())
    assert str(caught.value) == "trainable must name at least one parameter."
    with pytest.raises(InputError, match="must match at least one parameter"):
        train_stages(tiny_model(RESNET), tmp_path / "nothing", ["/no_such_layer/"])
    _, (biases,) = train_stages(tiny_model(RESNET), tmp_path / "ours", ["biases"])
    assert all(names for names, _, _ in biases.groups)
    assert all(name.endswith("bias") for names, _, _ in biases.groups for name in names)


@pytest.mark.defends("hf_finetune.training.freezing:_StaysInEval.__call__", by=mode_of_the_module)
def test_trap_07_the_statistics_of_a_frozen_batch_norm_do_not_change(tmp_path, tiny_model):
    """The Trainer calls ``model.train()`` at every micro-step, after ``on_step_begin``."""

    class EvalAtEachStep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            for module in kwargs["model"].modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    statistics = {name for name, _ in tiny_model(RESNET).named_buffers()}
    model = tiny_model(RESNET)
    freeze_flags(model, HEAD)
    before = state_of(model)
    stock_trainer(model, tmp_path / "stock", [EvalAtEachStep()]).train()
    assert differing(before, state_of(model)) == HEAD | statistics

    model = tiny_model(RESNET)
    _, (head,) = train_stages(model, tmp_path / "stage", ["head"])
    assert differing(head.before, head.after) == HEAD
    model = tiny_model(RESNET)
    before = state_of(model)
    stock_trainer(model, tmp_path / "callback", [FreezingCallback("head")]).train()
    assert differing(before, state_of(model)) == HEAD


@pytest.mark.defends("hf_finetune.training.freezing:_StaysInEval.__call__", by=mode_of_the_module)
@pytest.mark.defends("hf_finetune.training.freezing:frozen_modules", by=only_with_parameters)
def test_trap_08_the_output_of_a_frozen_prefix_is_deterministic(tmp_path, tiny_model):
    """Dropout in frozen layers stays active in a stock Trainer."""

    class Same(torch.utils.data.Dataset):
        def __init__(self, model):
            self.example = Examples(model, 1)[0]

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return self.example

    def features(train):
        model = tiny_model("bert", hidden_dropout_prob=0.2)
        seen = []
        model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
        train(model)
        return torch.cat(seen)

    def stock(model):
        freeze_flags(model, head_names(model))
        stock_trainer(model, tmp_path / "stock", data=Same(model)).train()

    def ours(model):
        train_stages(model, tmp_path / "ours", ["head"], data=Same(model))

    def callback(model):
        stock_trainer(model, tmp_path / "callback", [FreezingCallback("head")], data=Same(model)).train()

    assert len(features(stock).unique(dim=0)) > 1
    for train in (ours, callback):
        seen = features(train)
        assert len(seen) >= 8 and torch.equal(seen, seen[:1].expand_as(seen))
