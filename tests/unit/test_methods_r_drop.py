"""R-Drop: the divergence of two passes equals the published code's, and parts of a batch add up."""

import json
import logging

import pytest
import torch
from removals import mean_loss
from stage_helpers import Examples, differing, state_of, train_stages
from torch import nn
from torch.nn import functional

from hf_finetune.methods.distillation import Teacher, loss_with_teacher
from hf_finetune.methods.r_drop import r_drop_loss, repeat_batch, symmetric_kl
from hf_finetune.targets.losses import loss_for

ONE, OTHER = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)).unbind()
CLASSES = torch.tensor([0, 2, 1, 1, -100, 0])
MEMBERS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [float("nan")] * 3, [1, 0, 0]])


def published(one, other):
    """Return the divergence as in the README of the authors' repository: the mean of both ``kl_div`` sums."""
    p_loss = functional.kl_div(
        functional.log_softmax(one, dim=-1), functional.softmax(other, dim=-1), reduction="none"
    )
    q_loss = functional.kl_div(
        functional.log_softmax(other, dim=-1), functional.softmax(one, dim=-1), reduction="none"
    )
    return (p_loss.sum() + q_loss.sum()) / 2


def test_the_divergence_equals_that_of_the_authors_code():
    found = symmetric_kl(ONE, OTHER, "single_label")
    assert found.shape == (6,)
    torch.testing.assert_close(found.sum(), published(ONE, OTHER))


def test_the_disagreement_of_several_labels_is_that_of_two_classes_each():
    found = symmetric_kl(ONE, OTHER, "multi_label")
    assert found.shape == ONE.shape
    pairs = [torch.stack([each.flatten(), torch.zeros(18)], dim=-1) for each in (ONE, OTHER)]
    torch.testing.assert_close(found.sum(), published(*pairs))


def test_the_divergence_by_hand():
    """p = 3/4 and q = 1/2 of the first class: ((3/4 - 1/2) x log(3/2) + (1/4 - 1/2) x log(1/2)) / 2."""
    one, other = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    expected = (0.25 * torch.tensor(1.5).log() - 0.25 * torch.tensor(0.5).log()) / 2
    torch.testing.assert_close(symmetric_kl(one, other, "single_label"), expected.view(1))


@pytest.mark.defends(
    "hf_finetune.methods.r_drop:r_drop_loss",
    why="The R-Drop loss is a sum over the labels of the whole batch",
    by=mean_loss,
    ids=["single_label-labels0"],
)
@pytest.mark.parametrize(("target", "labels"), [("single_label", CLASSES), ("multi_label", MEMBERS)])
def test_parts_of_a_batch_add_up_to_it(target, labels):
    """In any division, and without the labels of fillers."""
    loss, factor = loss_for(target), 2.5
    twice = r_drop_loss(loss, factor, target)
    known = labels != -100 if target == "single_label" else ~labels.isnan()
    count = int(known.sum())
    whole = twice((torch.cat([ONE, OTHER]),), labels, count)
    parts = [
        twice({"logits": torch.cat([ONE[part], OTHER[part]])}, labels[part], count)
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)
    mean = (loss((ONE,), labels) + loss((OTHER,), labels)) / 2
    apart = (symmetric_kl(ONE, OTHER, target) * known).sum() / count
    torch.testing.assert_close(whole, mean + factor * apart)
    torch.testing.assert_close(twice((torch.cat([ONE, OTHER]),), labels), whole)


def test_one_pass_gives_the_loss_alone():
    twice = r_drop_loss(loss_for("single_label"), 3.0, "single_label")
    assert torch.equal(twice((ONE,), CLASSES), loss_for("single_label")((ONE,), CLASSES))


def test_a_batch_is_repeated_without_its_labels():
    batch = {"input_ids": torch.arange(4).view(2, 2), "prefix": (torch.ones(2, 1),), "labels": CLASSES[:2]}
    made = repeat_batch(batch)
    assert made["input_ids"].tolist() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    assert made["prefix"][0].shape == (4, 1) and made["labels"] is batch["labels"]


def with_dropout(model, rate):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
    return model


@pytest.mark.defends("hf_finetune.methods.r_drop:r_drop_loss", by=mean_loss)
def test_a_stage_adds_the_divergence_of_its_two_passes(tmp_path, tiny_model, caplog):
    """The loss in the log, over two micro-batches, equals that of the logits of the model."""
    model, seen = with_dropout(tiny_model("bert"), 0.3), []
    model.register_forward_hook(
        lambda module, inputs, output: seen.append(output.logits.detach()) if module.training else None
    )
    data = Examples(model, 8)
    order = []

    def collator(examples):
        order.extend(int(example["labels"]) for example in examples)
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    with caplog.at_level(logging.WARNING):
        train_stages(
            model,
            tmp_path,
            ["all"],
            data=data,
            collator=collator,
            max_steps=1,
            accumulation=2,
            regularize={"r_drop": 2.0},
        )
    assert [len(logits) for logits in seen] == [8, 8]
    one, other = (torch.cat([logits.chunk(2)[part] for logits in seen]) for part in range(2))
    assert not torch.equal(one, other)
    labels = torch.tensor(order[-8:])
    mean = (functional.cross_entropy(one, labels) + functional.cross_entropy(other, labels)) / 2
    expected = (mean + 2.0 * published(one, other) / 8).item()
    lines = (tmp_path / "stages" / "01-stage-0" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["loss"] == pytest.approx(expected, rel=1e-5)
    assert "R-Drop" not in caplog.text


def test_without_dropout_it_changes_nothing_and_warns(tmp_path, tiny_model, caplog):
    states = []
    for number, regularize in enumerate(({}, {"r_drop": 2.0})):
        model = with_dropout(tiny_model("bert"), 0.0)
        caplog.clear()
        train_stages(
            model,
            tmp_path / str(number),
            ["all"],
            regularize=regularize,
            max_steps=1,
            optimizer={"name": "sgd"},
        )
        states.append(state_of(model))
    assert caplog.text.count("R-Drop has no effect") == 1
    assert differing(*states) <= set(states[0])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


def test_a_teacher_looks_at_each_text_once_and_is_compared_with_both_passes():
    teacher = Teacher(nn.Linear(1, 1), [0, 1, 2], temperature=2.0, weight=0.5)
    teacher.logits = OTHER.roll(1, 0)
    taught = loss_with_teacher(loss_for("single_label"), teacher, "single_label")
    found = r_drop_loss(taught, 1.5, "single_label")((torch.cat([ONE, OTHER]),), CLASSES, 5)
    apart = (symmetric_kl(ONE, OTHER, "single_label") * (CLASSES != -100)).sum() / 5
    mean = (taught((ONE,), CLASSES, 5) + taught((OTHER,), CLASSES, 5)) / 2
    torch.testing.assert_close(found, mean + 1.5 * apart)
