"""Execution modes: which of them suit a model, their outputs, and that benchmarks have no side effects."""

from dataclasses import replace

import pytest
import torch
from speed_helpers import BF16, BF16_LAST, COMPILED, CPU, FP32, LAST, LOSS, MODES, image_batch, text_batch

from hf_finetune.performance.autotune import Choice, choose_mode
from hf_finetune.performance.execution_modes import (
    ExecutionMode,
    benchmark_steps,
    candidate_modes,
    relative_difference,
)
from hf_finetune.training.freezing import freeze_all_but

pytestmark = pytest.mark.slow


def test_modes_that_suit_a_model_are_listed(tiny_model, monkeypatch):
    monkeypatch.setattr("hf_finetune.performance.execution_modes._halves", lambda device: ("bf16",))
    images, texts = image_batch(), text_batch()
    convolutions, patches, text = tiny_model("timm/test_resnet"), tiny_model("vit"), tiny_model("bert")
    listed = [FP32, BF16_LAST, LAST, BF16]
    compiled = [replace(mode, compile=True) for mode in (BF16_LAST, LAST, BF16, FP32)]
    assert candidate_modes(convolutions, images, CPU) == listed + compiled
    assert candidate_modes(patches, images, CPU, compile=False) == [FP32, BF16]
    assert candidate_modes(text, texts, CPU) == [FP32, BF16]
    assert candidate_modes(convolutions, images, CPU, precision="fp32", compile=False) == [FP32, LAST]
    pinned = candidate_modes(convolutions, images, CPU, memory_format="channels_last", compile=True)
    assert pinned == [COMPILED[1], COMPILED[3]]
    assert candidate_modes(text, texts, torch.device("mps")) == [FP32]


def all_of(model):
    """Return all state that a benchmark could change."""
    state = {name: (value.clone(), value.stride()) for name, value in model.state_dict().items()}
    flags = [weight.requires_grad for weight in model.parameters()]
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    modes = [module.training for module in model.modules()]
    return state, flags, places, modes


def is_as_before(model, before):
    state, *rest = all_of(model)
    same = all(
        torch.equal(value, before[0][name][0]) and stride == before[0][name][1]
        for name, (value, stride) in state.items()
    )
    return same and rest == list(before[1:]) and all(weight.grad is None for weight in model.parameters())


MODELS = [
    ("timm/test_resnet", {}),
    ("timm/test_efficientnet", {}),
    ("vit", {}),
    ("convnext", {}),
    ("bert", {"hidden_dropout_prob": 0.3}),
    ("distilbert", {"dropout": 0.3}),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("only_head", [True, False])
@pytest.mark.parametrize(("name", "changes"), MODELS)
def test_model_and_random_numbers_are_as_before(tiny_model, monkeypatch, name, changes, only_head, training):
    monkeypatch.setattr("hf_finetune.performance.autotune.NUM_ROUNDS", 1)
    model = tiny_model(name, **changes)
    names = [each for each, _ in model.named_parameters()]
    trainable = names[-2:] if only_head else names
    freeze_all_but(model, trainable)
    model.train(training)
    before, chance = all_of(model), torch.get_rng_state()
    batch = image_batch() if "pixel_values" in model.main_input_name else text_batch()
    for forward_only in (False, True):
        found = choose_mode(model, batch, LOSS, trainable, MODES, steps=1000, forward_only=forward_only)
        assert set(found.seconds) <= {mode.title for mode in MODES}
        assert is_as_before(model, before)
        assert torch.equal(torch.get_rng_state(), chance)


def test_the_model_is_as_before_when_the_reference_fails(tiny_model):
    model = tiny_model("timm/test_resnet").train()
    before = all_of(model)

    def loss(outputs, labels):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_mode(model, image_batch(), loss, ["timm_model.fc.weight"], MODES, steps=1000)
    assert is_as_before(model, before)


def test_without_the_memory_for_fp32_the_reference_is_kept(tiny_model):
    model = tiny_model("timm/test_resnet").train()
    before = all_of(model)

    def loss(outputs, labels):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    found = choose_mode(model, image_batch(), loss, ["timm_model.fc.weight"], [BF16, BF16_LAST], steps=1000)
    assert found == Choice(BF16, "bf16: too little memory to compare it with fp32")
    assert is_as_before(model, before)


def test_the_numbers_of_a_batch_are_the_same_at_every_call(tiny_model):
    model = tiny_model("bert", hidden_dropout_prob=0.5)
    names = [name for name, _ in model.named_parameters()]
    with benchmark_steps(model, text_batch(), LOSS, names) as bench:
        one, other = bench.compute_outputs(FP32), bench.compute_outputs(FP32)
        still = bench.compute_outputs(FP32, training=False)
        half = bench.compute_outputs(ExecutionMode("fp16"))
    assert one.loss == other.loss and relative_difference(one.gradient, other.gradient) == 0
    assert relative_difference(one.gradient, still.gradient) > 0.1  # without dropout it is another
    assert 0 < relative_difference(half.gradient, one.gradient) < 0.05  # brought back to scale


def test_the_numbers_do_not_depend_on_the_steps_before(tiny_model):
    model = tiny_model("timm/test_resnet")  # with BatchNorm, whose statistics move in every step
    with benchmark_steps(model, image_batch(), LOSS, [name for name, _ in model.named_parameters()]) as bench:
        one = bench.compute_outputs(FP32)
        bench.step(BF16_LAST)
        other = bench.compute_outputs(FP32)
    assert (
        relative_difference([one.logits], [other.logits])
        == relative_difference(one.gradient, other.gradient)
        == 0
    )


def test_a_difference_is_a_share_of_the_norm():
    assert relative_difference(
        [torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([0.0])]
    ) == (pytest.approx(4 / 3))
    assert relative_difference([torch.zeros(2)], [torch.zeros(2)]) == 0
    assert relative_difference([torch.ones(2)], [torch.zeros(2)]) == float("inf")


@pytest.mark.parametrize("forward_only", [True, False])
def test_a_pass_of_a_frozen_prefix_is_timed_in_evaluation_mode(tiny_model, forward_only):
    model, modes = tiny_model("timm/test_resnet"), []
    model.register_forward_pre_hook(lambda module, *_: modes.append(module.training))
    with benchmark_steps(model, image_batch(), LOSS, [], forward_only=forward_only) as bench:
        bench.step(FP32)
    assert modes == [not forward_only]
