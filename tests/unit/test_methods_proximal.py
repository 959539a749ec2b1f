"""Shrinkage of weights after a step, and noise on the gradient before it: by hand, and in real stages."""

from types import SimpleNamespace

import pytest
import torch
from stage_helpers import differing, state_of, train_stages
from torch import nn
from torch.nn import functional

from hf_finetune.methods.proximal import (
    GradientNoise,
    ProximalSteps,
    add_noise,
    noise_variance,
    pretrained_weights,
    shrink_towards_start,
    soft_threshold,
)
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import ParameterGroup
from hf_finetune.planning.stages import build_plan
from hf_finetune.recipe.stage_fields import StageSpec

SGD = {"optimizer": {"name": "sgd"}, "layer_decay": 1.0, "schedule": "constant"}


def test_the_soft_threshold_by_hand():
    weight = torch.tensor([1.0, -0.5, 0.25, -0.25, 0.1, 0.0])
    soft_threshold(weight, 0.25)
    assert weight.tolist() == [0.75, -0.25, 0.0, 0.0, 0.0, 0.0]


def test_the_soft_threshold_is_torchs():
    weight = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    expected = functional.softshrink(weight, 0.3)
    soft_threshold(weight, 0.3)
    torch.testing.assert_close(weight, expected)
    assert torch.equal(weight == 0, expected == 0) and (weight == 0).any()


def test_the_pull_back_by_hand():
    weight = torch.tensor([3.0, -1.0, 1.0])
    shrink_towards_start(weight, torch.ones(3), 1.0)
    assert weight.tolist() == [2.0, 0.0, 1.0]


def test_no_shrinkage_passes_the_initial_weights():
    weight = torch.tensor([3.0, -1.0])
    shrink_towards_start(weight, torch.ones(2), 1e12)
    torch.testing.assert_close(weight, torch.ones(2))


def test_for_a_small_rate_the_pull_is_the_step_of_the_papers_gradient():
    """Li et al. 2018 add alpha / 2 x |w - start|^2 to the loss, whose gradient is alpha x (w - start)."""
    weight, start, rate, alpha = torch.randn(9), torch.randn(9), 1e-4, 0.1
    expected = weight - rate * alpha * (weight - start)
    shrink_towards_start(weight, start, rate * alpha)
    torch.testing.assert_close(weight, expected, rtol=0, atol=1e-8)


@pytest.fixture
def step():
    """Return an optimizer of two parameters at the rate 0.5, each with a gradient, and a third one without."""
    weights = [nn.Parameter(torch.tensor([1.0, -0.1])) for _ in range(3)]
    for weight in weights[:2]:
        weight.grad = torch.zeros(2)
    group = {"params": weights, "lr": 0.5}
    return SimpleNamespace(param_groups=[group], step_was_skipped=False), weights


GROUPS = (ParameterGroup("head", 1.0, 0.0, ("a", "b", "c"), 6),)


def test_each_pull_reaches_its_own_weights_at_the_rate_of_the_step(step):
    optimizer, (one, other, unused) = step
    start = {"b": torch.tensor([0.0, 0.9]), "c": torch.zeros(2)}
    callback = ProximalSteps(GROUPS, l1=0.4, l1_names=["a", "c"], l2_sp=2.0, pretrained=start)
    callback.on_train_begin(None, None, None, optimizer=optimizer)
    callback.on_optimizer_step(None, None, None, optimizer=optimizer)
    assert one.tolist() == pytest.approx([0.8, 0.0]) and one[1] == 0
    assert other.tolist() == pytest.approx([0.5, 0.4])
    assert unused.tolist() == pytest.approx([1.0, -0.1])  # the optimizer skips it too


def ignore_skipped(original, self, args, state, control, **kwargs):
    """Skipped steps shrink weights too."""
    kwargs["optimizer"].step_was_skipped = False
    original(self, args, state, control, **kwargs)


@pytest.mark.defends(
    "hf_finetune.methods.proximal:ProximalSteps.on_optimizer_step",
    why="A step that the fp16 gradient scaler skips shrinks nothing",
    by=ignore_skipped,
)
def test_a_step_that_the_scaler_skipped_changes_nothing(step):
    optimizer, weights = step
    optimizer.step_was_skipped = True
    callback = ProximalSteps(GROUPS, l1=0.4, l1_names=["a", "b"])
    callback.on_train_begin(None, None, None, optimizer=optimizer)
    callback.on_optimizer_step(None, None, None, optimizer=optimizer)
    assert all(weight.tolist() == pytest.approx([1.0, -0.1]) for weight in weights)


def shrink_all(original, self, args, state, control, **kwargs):
    """All parameters of the model shrink."""
    if kwargs["optimizer"].step_was_skipped:
        return
    rate = kwargs["optimizer"].param_groups[0]["lr"]
    with torch.no_grad():
        for name, weight in kwargs["model"].named_parameters():
            if name in self.l1_names:
                weight.sub_(weight.clamp(-rate * self.l1, rate * self.l1))


@pytest.mark.defends(
    "hf_finetune.methods.proximal:ProximalSteps.on_optimizer_step",
    why="L1 shrinks only the parameters in the optimizer",
    by=shrink_all,
    ids=["bert", "timm/test_resnet"],
)
@pytest.mark.parametrize("name", ["bert", "timm/test_resnet"])
def test_l1_sets_decayed_weights_to_zero_and_leaves_others_unchanged(tmp_path, tiny_model, name):
    """So strong a penalty removes a weight completely; norms, biases and frozen parameters keep theirs."""
    model = tiny_model(name)
    (plan, _), (watch, _) = train_stages(model, tmp_path, ["last:1", "norms"], regularize={"l1": 1e6}, **SGD)
    trained, decaying = set(plan.trainable), {p.name for p in plan.layout.parameters if p.decays}
    moved = differing(watch.before, watch.after)
    assert moved & {parameter.name for parameter in plan.layout.parameters} <= trained
    for parameter in trained:
        assert watch.after[parameter].any() == (parameter not in decaying), parameter
    assert trained & decaying and trained - decaying


@pytest.mark.parametrize("name", ["bert", "timm/test_resnet"])
def test_l2_sp_pulls_exactly_the_trained_weights_below_the_head_to_the_checkpoint(tmp_path, tiny_model, name):
    """Even if it has an initial value for every parameter, including frozen ones."""
    model = tiny_model(name)
    layout = read_layout(model)
    first = {each.name for each in layout.parameters if each.group == layout.head_group}
    start = {key: value + 1.0 for key, value in state_of(model).items() if key not in first}
    (plan,), (watch,) = train_stages(
        model, tmp_path, ["last:1"], pretrained=start, regularize={"l2_sp": 1e6}, **SGD
    )
    parameters = {each.name for each in layout.parameters}
    moved = differing(watch.before, watch.after) & parameters
    assert moved == set(plan.trainable)
    for parameter in moved - first:
        torch.testing.assert_close(watch.after[parameter], start[parameter], rtol=1e-3, atol=1e-3)
    assert (moved & first) and all(
        (watch.after[each] - watch.before[each]).abs().max() < 0.5 for each in first
    )


def test_l2_sp_replaces_weight_decay_below_the_head(tiny_model):
    layout = read_layout(tiny_model("bert"))
    stage = {"train": "all", "epochs": 1, "lr": 0.1, "weight_decay": 0.3}
    plain, pulled = (
        build_plan(layout, [StageSpec(**stage, regularize=regularize)], 8).stages[0].groups
        for regularize in ({}, {"l2_sp": 0.1})
    )
    decays = {(group.layers, group.weight_decay) for group in pulled}
    assert ("head", 0.3) in decays and {decay for layers, decay in decays if layers != "head"} == {0.0}
    assert any(group.layers != "head" and group.weight_decay == 0.3 for group in plain)
    assert {n for group in plain for n in group.parameters} == {
        n for group in pulled for n in group.parameters
    }


def test_initial_weights_are_stored_for_the_stages_with_l2_sp_and_without_the_head(tiny_model):
    model = tiny_model("bert")
    layout = read_layout(model)
    stages = [
        StageSpec(train="all", epochs=1, lr=0.1),
        StageSpec(train="last:1", epochs=1, lr=0.1, regularize={"l2_sp": 0.1}),
    ]
    plan = build_plan(layout, stages, 8)
    before, found = state_of(model), pretrained_weights(model, stages, plan)
    head = {each.name for each in layout.parameters if each.group == layout.head_group}
    assert set(found) == set(plan.stages[1].trainable) - head and found
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in found.items())
    assert pretrained_weights(model, stages[:1], build_plan(layout, stages[:1], 8)) == {}


def test_the_noise_fades_as_in_the_paper():
    """Neelakantan et al. 2015: eta / (1 + t)^0.55."""
    assert [noise_variance(0.3, step) for step in (0, 1, 99)] == pytest.approx(
        [0.3, 0.204906, 0.023829], rel=1e-4
    )


def global_noise(original, gradients, variance, seed):
    """The global random state."""
    for gradient in gradients:
        gradient.add_(torch.randn_like(gradient), alpha=variance**0.5)


@pytest.mark.defends(
    "hf_finetune.methods.proximal:add_noise", why="Gradient noise is equal on all processes", by=global_noise
)
def test_the_noise_is_normal_and_depends_on_the_seed_only():
    gradients = [torch.zeros(200, 100), torch.ones(7)]
    add_noise(gradients, 0.25, seed=3)
    assert gradients[0].mean().item() == pytest.approx(0.0, abs=0.02)
    assert gradients[0].std().item() == pytest.approx(0.5, rel=0.02)
    again = [torch.zeros(200, 100), torch.ones(7)]
    torch.randn(5)
    add_noise(again, 0.25, seed=3)
    assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))
    add_noise(again, 0.25, seed=4)
    assert not torch.equal(gradients[0], again[0])


@pytest.mark.parametrize("clip", [None, 1e-6])
def test_the_noise_of_a_stage_by_hand(tmp_path, tiny_model, clip):
    """One step of plain SGD with noise differs from one without by rate x noise, after clipping."""
    plain, noisy = tiny_model("timm/test_resnet"), tiny_model("timm/test_resnet")
    options = {**SGD, "max_steps": 1, "clip": clip, "weight_decay": 0.0}
    (plan,), _ = train_stages(plain, tmp_path / "plain", ["last:1"], **options)
    train_stages(noisy, tmp_path / "noisy", ["last:1"], regularize={"gradient_noise": 0.04}, **options)
    one, other = state_of(plain), state_of(noisy)
    names = [name for group in plan.groups for name in group.parameters]
    assert differing(one, other) == set(names)
    noise = [torch.zeros_like(one[name]) for name in names]
    add_noise(noise, 0.04, hash((0, 0)) & 0x7FFF_FFFF_FFFF_FFFF)
    for name, drawn in zip(names, noise, strict=True):
        torch.testing.assert_close(other[name], one[name] - 0.01 * drawn, rtol=1e-4, atol=1e-6)


def test_every_step_has_different_noise(step):
    optimizer, (weight, _, unused) = step
    drawn = []
    for number in (0, 1, 0):
        weight.grad = torch.zeros(2)
        GradientNoise(GROUPS, 1.0, seed=5).on_pre_optimizer_step(
            None, SimpleNamespace(global_step=number), None, optimizer=optimizer
        )
        drawn.append(weight.grad.clone())
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert unused.grad is None
