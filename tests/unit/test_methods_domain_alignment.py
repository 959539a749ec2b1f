"""Domain alignment: each loss by hand, and the same over micro-batches and after resuming."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from removals import unchanged
from torch import nn
from torch.nn import functional
from transformers import TrainerControl, TrainerState

from hf_finetune.errors import InputError
from hf_finetune.methods import domain_alignment
from hf_finetune.methods.domain_alignment import (
    DomainAlignment,
    HeadInput,
    aligned_loss,
    coral_loss,
    domain_loss,
    reversal_strength,
    reverse_gradient,
)
from hf_finetune.targets.losses import loss_for

ALONE = SimpleNamespace(world_size=1)


def images(count, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_coral_of_two_by_two_features_by_hand():
    """The covariances are [[2, 2], [2, 2]] and [[2, 0], [0, 0]]: 4 + 4 + 4 over 4 x 2^2."""
    source = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    target = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert coral_loss(source, target).item() == pytest.approx(12 / 16)


def test_coral_is_the_formula_of_the_paper():
    chance = np.random.default_rng(0)
    source, target = chance.normal(size=(7, 5)), chance.normal(2.0, 3.0, size=(4, 5))

    def covariance(data):
        ones = np.ones((1, len(data)))
        return (data.T @ data - (ones @ data).T @ (ones @ data) / len(data)) / (len(data) - 1)

    expected = np.linalg.norm(covariance(source) - covariance(target), "fro") ** 2 / (4 * 5**2)
    assert coral_loss(torch.tensor(source), torch.tensor(target)).item() == pytest.approx(expected)


def test_coral_of_features_of_size_one_and_of_single_examples():
    assert coral_loss(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])).item() == 36 / 4
    alone = torch.ones(1, 3, requires_grad=True)
    value = coral_loss(alone, torch.ones(4, 3))
    value.backward()
    assert value.item() == 0.0 and alone.grad.abs().sum() == 0.0


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.1, 0.46211716), (0.5, 0.98661430), (1.0, 0.99990920)]
)
def test_the_strength_of_the_reversal(progress, expected):
    assert reversal_strength(progress) == pytest.approx(expected, rel=1e-7)


@pytest.mark.defends(
    "hf_finetune.methods.domain_alignment:reverse_gradient",
    why="The gradient of the domain classifier is reversed before it reaches the model",
    by=unchanged,
)
def test_a_reversed_gradient_is_that_of_autograd_with_another_sign():
    features = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    weights = torch.tensor([2.0, -1.0], requires_grad=True)
    passed = reverse_gradient(features, 0.25)
    assert torch.equal(passed, features)
    (passed @ weights).square().sum().backward()
    scores = features.detach() @ weights.detach()
    assert torch.allclose(features.grad, -0.25 * 2 * scores[:, None] * weights.detach())
    assert torch.allclose(weights.grad, 2 * (scores[:, None] * features.detach()).sum(dim=0))


def test_the_loss_of_the_domains_by_hand():
    logits = torch.tensor([0.0, 2.0, -1.0])
    expected = (math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 3
    assert domain_loss(logits, 1).item() == pytest.approx(expected)
    assert domain_loss(logits[:0], 0).item() == 0.0


NAMES = ["bert", "roberta", "distilbert", "electra", "deberta-v2", "gpt2", "modernbert"]


@pytest.mark.parametrize("name", NAMES)
def test_the_heads_input_of_a_text_model_is_one_vector_for_each_example(tiny_model, name):
    model = tiny_model(name)
    seen = HeadInput(model)
    model(input_ids=torch.tensor([[2, 5, 6, 3], [2, 7, 3, 4]]), attention_mask=torch.ones(2, 4).long())
    assert seen.pop().shape == (2, 16)
    seen.remove()
    model(input_ids=torch.tensor([[2, 5, 6, 3]]))
    assert not seen.vectors and not seen.sequences


def test_the_heads_input_of_a_decoder_is_that_of_its_logits_whatever_the_padding(tiny_model):
    model = tiny_model("gpt2")
    model.config.pad_token_id = 0
    seen = HeadInput(model)
    found = []
    for padding in (0, 5):
        tokens = torch.tensor([[2, 5, 6, 3, *[0] * padding]])
        mask = (tokens != 0).long()
        logits = model(input_ids=tokens, attention_mask=mask).logits
        found.append(seen.pop())
        torch.testing.assert_close(functional.linear(found[-1], model.score.weight), logits)
    torch.testing.assert_close(*found)


def test_a_head_without_a_vector_as_input_is_reported(tiny_model):
    seen = HeadInput(tiny_model("vit"))
    with pytest.raises(InputError, match="Its head receives no feature vector"):
        seen.pop()


@pytest.mark.parametrize(
    ("name", "size"), [("vit", 16), ("swin", 16), ("resnet", 16), ("convnext", 16), ("timm/test_resnet", 96)]
)
def test_the_heads_input_makes_the_logits_of_an_image_model(tiny_model, name, size):
    model = tiny_model(name)
    seen = HeadInput(model)
    logits = model(pixel_values=images(3)).logits
    features = seen.pop()
    assert features.shape == (3, size)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert torch.allclose(functional.linear(features, last.weight, last.bias), logits, atol=1e-6)


def alignment_of(model, method, weight=0.5):
    return prepared_alignment(model, method, weight, seed=1)


def prepared_alignment(model, method, weight, seed):
    alignment = DomainAlignment(images(2), method, weight)
    alignment.prepare(model, [], lambda inputs: {"pixel_values": torch.stack(inputs)}, seed)
    return alignment


def micro_batches(model, alignment, labels, sources, targets, sizes, progress):
    """Return the gradients of model and domain classifier over a step of micro-batches, and the added loss."""
    model.zero_grad()
    alignment.on_step_begin(ALONE, TrainerState(global_step=progress, max_steps=10), None)
    loss = aligned_loss(loss_for("single_label"), alignment)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        start += size
        outputs = model(pixel_values=torch.cat([sources[rows], targets[rows]]))
        loss(outputs, labels[rows], torch.tensor(len(labels))).backward()
    judge = [one.grad.clone() for one in alignment.classifier.parameters()] if alignment.classifier else []
    grads = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    return grads + judge, torch.stack(alignment.step_losses).sum().item()


def test_dann_is_the_same_however_many_micro_batches_share_a_step(tiny_model):
    model = tiny_model("vit")
    labels, sources, targets = torch.tensor([0, 1, 2, 0, 1, 2]), images(6, 1), images(6, 2) + 1
    alignment = alignment_of(model, "dann")
    whole, value = micro_batches(model, alignment, labels, sources, targets, [6], 3)
    parts, same = micro_batches(model, alignment, labels, sources, targets, [4, 2], 3)
    assert same == pytest.approx(value, rel=1e-6)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_coral_of_a_step_is_the_mean_of_its_micro_batches_by_their_sizes(tiny_model):
    model = tiny_model("vit")
    labels, sources, targets = torch.tensor([0, 1, 2, 0, 1, 2]), images(6, 1), images(6, 2) + 1
    alignment = alignment_of(model, "coral")
    _, value = micro_batches(model, alignment, labels, sources, targets, [4, 2], 0)
    features = HeadInput(model)
    each = []
    for rows in (slice(0, 4), slice(4, 6)):
        pairs = []
        for batch in (sources[rows], targets[rows]):
            model(pixel_values=batch)
            pairs.append(features.pop().detach())
        each.append(coral_loss(*pairs).item())
    assert value == pytest.approx((4 * each[0] + 2 * each[1]) / 6, rel=1e-4)


@pytest.mark.defends("hf_finetune.methods.domain_alignment:reverse_gradient", by=unchanged)
def test_the_gradient_below_the_head_is_the_reversed_one_of_the_domain_classifier(tiny_model):
    """By hand: the gradient of the labels minus strength x weight x the gradient of the domain loss."""
    model = tiny_model("vit")
    labels, sources, targets = torch.tensor([0, 1]), images(2, 1), images(2, 2) + 1
    alignment = alignment_of(model, "dann", weight=0.5)
    found, _ = micro_batches(model, alignment, labels, sources, targets, [2], 2)
    strength, seen = reversal_strength(0.2), HeadInput(model)

    def gradient(value):
        return torch.autograd.grad(value(), [*model.vit.parameters()], allow_unused=True)

    def of_labels():
        return functional.cross_entropy(model(pixel_values=sources).logits, labels)

    def of_domains():
        model(pixel_values=torch.cat([sources, targets]))
        wanted = torch.tensor([0.0, 0.0, 1.0, 1.0])
        logits = alignment.classifier(seen.pop()).squeeze(1)
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    known = {id(one): place for place, one in enumerate(p for p in model.parameters() if p.grad is not None)}
    pairs = zip(model.vit.parameters(), gradient(of_labels), gradient(of_domains), strict=True)
    for parameter, first, second in pairs:
        if first is not None:
            expected = first - strength * 0.5 * second
            torch.testing.assert_close(found[known[id(parameter)]], expected, rtol=1e-4, atol=1e-6)


def test_fillers_count_in_neither_domain_and_a_validation_batch_is_as_ever(tiny_model):
    model = tiny_model("vit")
    alignment = alignment_of(model, "dann")
    plain, loss = loss_for("single_label"), aligned_loss(loss_for("single_label"), alignment)
    batch, labels = torch.cat([images(3, 1), images(3, 2)]), torch.tensor([0, 1, -100])
    outputs = model(pixel_values=batch)
    value = loss(outputs, labels, torch.tensor(2))
    rows = torch.tensor([0, 1, 3, 4])
    features = HeadInput(model)
    model(pixel_values=batch)
    logits = alignment.classifier(features.pop()[rows]).squeeze(1)
    added = functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    expected = plain({"logits": outputs.logits[:3]}, labels, torch.tensor(2)) + 0.5 * added
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    outputs = model(pixel_values=batch[:3])
    assert loss(outputs, labels).item() == plain(outputs, labels).item()


def test_a_batch_of_fillers_has_zero_loss(tiny_model):
    model = tiny_model("vit")
    for method in ("coral", "dann"):
        alignment = alignment_of(model, method)
        loss = aligned_loss(loss_for("single_label"), alignment)
        value = loss(model(pixel_values=images(2)), torch.tensor([-100]), torch.tensor(4))
        value.backward()
        assert value.item() == 0.0


@pytest.mark.parametrize("target", ["multi_label", "regression"])
def test_other_labels_weigh_each_micro_batch_by_its_share(tiny_model, target):
    model = tiny_model("vit", num_labels=1 if target == "regression" else 3)
    alignment = alignment_of(model, "coral", weight=1.0)
    labels = torch.rand(2) if target == "regression" else torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    aligned_loss(loss_for(target), alignment)(
        model(pixel_values=images(4)), labels, torch.tensor(2 * labels.numel())
    )
    model(pixel_values=images(4))
    features = alignment.features.pop()
    assert alignment.step_losses[0].item() == pytest.approx(coral_loss(features[:2], features[2:]).item() / 2)


def step_domain_classifier(alignment, state, **optimizer):
    """Call the callbacks around a step of the optimizer as the Trainer does."""
    given = SimpleNamespace(**{"step_was_skipped": False, "scaler": None, **optimizer})
    alignment.on_pre_optimizer_step(ALONE, state, None, optimizer=given)
    alignment.on_optimizer_step(ALONE, state, None, optimizer=given)


@pytest.mark.defends(
    "hf_finetune.methods.domain_alignment:DomainAlignment.on_pre_optimizer_step",
    why="The fp16 loss scale is removed from the gradients of the domain classifier",
)
def test_in_fp16_the_domain_classifier_has_unscaled_gradients_and_skips_steps_with_the_model(tiny_model):
    def judged(scale, **optimizer):
        alignment = alignment_of(tiny_model("vit"), "dann")
        features = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
        alignment.on_step_begin(ALONE, TrainerState(max_steps=4), None)
        (alignment.alignment_loss(features[:3], features[3:]) * scale).backward()
        step_domain_classifier(alignment, TrainerState(), **optimizer)
        return alignment.classifier[0].weight.detach(), alignment.classifier[0].weight.grad

    begun = alignment_of(tiny_model("vit"), "dann").classifier[0].weight
    scaler = SimpleNamespace(get_scale=lambda: 1024.0)
    plain, scaled = judged(1.0), judged(1024.0, scaler=scaler)
    assert not torch.equal(plain[0], begun)
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-7)
    assert torch.equal(judged(1024.0, scaler=scaler, step_was_skipped=True)[0], begun)


@pytest.mark.defends(
    "hf_finetune.methods.domain_alignment:DomainAlignment.load",
    why="The domain classifier continues from a checkpoint",
)
def test_the_domain_classifier_resumes_bit_for_bit(tiny_model, tmp_path):
    def step(alignment, seed):
        state = TrainerState(global_step=seed, max_steps=4)
        alignment.on_step_begin(ALONE, state, None)
        alignment.alignment_loss(
            torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)), torch.ones(3, 16)
        ).backward()
        step_domain_classifier(alignment, state)

    straight, model = alignment_of(tiny_model("vit"), "dann"), tiny_model("vit")
    for seed in range(4):
        step(straight, seed)
    first = alignment_of(model, "dann")
    step(first, 0)
    step(first, 1)
    first.save(tmp_path)
    second = prepared_alignment(model, "dann", 0.5, seed=9)
    second.load(tmp_path)
    step(second, 2)
    step(second, 3)
    for one, other in zip(straight.classifier.parameters(), second.classifier.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.classifier[0].weight, second.classifier[0].weight)


@pytest.mark.parametrize("state", [{}, {"judge": {}, "optimizer": {}}, {"judge": 3, "optimizer": None}])
def test_the_state_of_another_domain_classifier_is_reported_with_its_file(tiny_model, tmp_path, state):
    torch.save(state, tmp_path / "domain.pt")
    with pytest.raises(InputError) as error:
        alignment_of(tiny_model("vit"), "dann").load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'domain.pt'} must contain the saved training state as tensors. Got the state of "
        "another domain classifier. Restore the file from a copy of the run directory, or start a new run."
    )


def test_the_domain_classifier_uses_no_global_random_numbers_and_skips_values_that_are_not_finite(tiny_model):
    model = tiny_model("vit")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    alignment = alignment_of(model, "dann")
    assert torch.equal(torch.get_rng_state(), before)
    weights = [one.clone() for one in alignment.classifier.parameters()]
    for one in alignment.classifier.parameters():
        one.grad = torch.full_like(one, math.inf)
    step_domain_classifier(alignment, TrainerState())
    assert all(torch.equal(a, b) for a, b in zip(weights, alignment.classifier.parameters(), strict=True))


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (0.5, "The CORAL loss was 0.075 of the training loss."),
        (
            0.05,
            "The CORAL loss was 0.0075 of the training loss; this is too little to have an effect: try a larger "
            "weight.",
        ),
    ],
)
def test_the_share_of_coral_in_the_loss_is_logged(tiny_model, caplog, weight, said):
    caplog.set_level("INFO")
    alignment = alignment_of(tiny_model("vit"), "coral", weight)
    logged = [{"loss": 3.0, "domain_loss": 0.5}, {"eval_loss": 9.0}, {"loss": 1.0, "domain_loss": 0.1}]
    state = TrainerState(log_history=logged, is_world_process_zero=True)
    alignment.on_train_end(None, state, TrainerControl())
    assert caplog.messages[-1] == said


def test_hooks_are_removed_and_the_training_mode_is_restored_at_the_end(tiny_model):
    model = tiny_model("vit").train()
    alignment = alignment_of(model, "coral")
    assert model.training and alignment.classifier is None
    with alignment.active():
        assert model._forward_pre_hooks
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_alignment_is_joined_with_the_examples_of_a_stage(tiny_model):
    batch = [{"pixel_values": image, "labels": 0} for image in images(3)]
    targets = [{"pixel_values": image} for image in images(2, 5)]

    def collate(examples):
        found = {"pixel_values": torch.stack([one["pixel_values"] for one in examples])}
        if "labels" in examples[0]:
            found["labels"] = torch.tensor([one["labels"] for one in examples])
        return found

    alignment = DomainAlignment(targets, "coral", 2.0)
    train, joined = alignment.prepare(tiny_model("vit"), batch, collate, 0)
    made = joined([train[index] for index in range(3)])
    assert made["pixel_values"].shape[0] == 6 and made["labels"].tolist() == [0, 0, 0]
    assert alignment.weight == 2.0 and domain_alignment.CLASSIFIER_UNITS == 100
