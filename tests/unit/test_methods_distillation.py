"""Distillation: the loss by hand, and a Trainer that runs the teacher on each batch."""

import math
from functools import partial

import pytest
import torch
from stage_helpers import Examples, stock_trainer
from torch.nn import functional

from hf_finetune.methods.distillation import Teacher, distillation_loss, loss_with_teacher
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.trainer import SingleStageTrainer


def told(logits, temperature=2.0, weight=0.25):
    """Return a teacher with the given logits."""
    teacher = Teacher(torch.nn.Linear(1, 1), [0, 1], temperature, weight)
    teacher.logits = torch.tensor(logits)
    return teacher


def test_the_loss_of_one_label_by_hand():
    # Divided by 2, the teacher's odds are 3 to 1 and the student's are even.
    wanted = torch.tensor([[2 * math.log(3.0), 0.0]])
    found = distillation_loss(torch.zeros(1, 2), wanted, "single_label", 2.0)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert found.tolist() == pytest.approx([4 * divergence])


def test_the_loss_of_several_labels_by_hand():
    wanted = torch.tensor([[2 * math.log(3.0), 0.0]])
    found = distillation_loss(torch.zeros(1, 2), wanted, "multi_label", 2.0)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx([4 * divergence, 0.0], abs=1e-6)


def test_the_loss_of_a_continuous_target_is_the_squared_difference():
    found = distillation_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), "regression", 2.0)
    assert found.tolist() == [4.0, 0.0]


@pytest.mark.parametrize("target", ["single_label", "multi_label", "regression"])
def test_equal_predictions_have_zero_divergence(target):
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert distillation_loss(logits, logits, target, 3.0).abs().max().item() == pytest.approx(0.0, abs=1e-6)


def test_the_gradient_keeps_its_size_at_a_high_temperature():
    student = torch.tensor([[0.3, -0.1, 0.0]], requires_grad=True)
    wanted = torch.tensor([[0.0, 0.2, -0.4]])
    distillation_loss(student, wanted, "single_label", 1000.0).sum().backward()
    # Hinton et al.: at a high temperature it is the difference of the centered logits, divided by the classes.
    centered = [(each - each.mean()) / 3 for each in (student.detach()[0], wanted[0])]
    assert student.grad[0].tolist() == pytest.approx((centered[0] - centered[1]).tolist(), rel=1e-2)


def test_labels_and_teacher_share_the_loss():
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])
    teacher = told([[0.0, 1.0], [1.0, 1.0]])
    hard = functional.cross_entropy(logits, labels)
    soft = distillation_loss(logits, teacher.logits, "single_label", 2.0).mean()
    found = loss_with_teacher(loss_for("single_label"), teacher, "single_label")((logits,), labels)
    assert found.item() == pytest.approx((0.75 * hard + 0.25 * soft).item())


def test_the_sum_is_divided_by_the_labels_of_the_whole_batch():
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])
    shared = loss_with_teacher(loss_for("single_label"), told([[0.0, 1.0], [1.0, 1.0]]), "single_label")
    assert shared((logits,), labels, 8).item() == pytest.approx(shared((logits,), labels).item() / 4)


def test_fillers_are_ignored():
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    both = loss_with_teacher(loss_for("single_label"), told([[0.0, 1.0], [9.0, 1.0]]), "single_label")
    one = loss_with_teacher(loss_for("single_label"), told([[0.0, 1.0]]), "single_label")
    expected = one((logits[:1],), torch.tensor([0])).item()
    assert both((logits,), torch.tensor([0, -100])).item() == pytest.approx(expected)


def test_labels_that_are_shares_count_once_each_class():
    logits, shares = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    teacher = told([[0.0, 1.0]], weight=1.0)
    soft = distillation_loss(logits, teacher.logits, "single_label", 2.0).item()
    found = loss_with_teacher(loss_for("single_label"), teacher, "single_label")((logits,), shares)
    assert found.item() == pytest.approx(soft)


def test_without_teacher_logits_only_the_labels_count():
    logits, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    teacher = told([[0.0, 1.0]])
    teacher.clear_logits()
    found = loss_with_teacher(loss_for("single_label"), teacher, "single_label")((logits,), labels)
    assert found.item() == functional.cross_entropy(logits, labels).item()


def test_a_teacher_uses_the_students_label_order_and_is_not_trained(tiny_model):
    model = tiny_model("bert").train()
    teacher = Teacher(model, [2, 0, 1], 2.0, 0.5)
    batch = torch.utils.data.default_collate([Examples(model, 2)[index] for index in range(2)])
    teacher.predict_batch(batch)
    expected = tiny_model("bert")(batch["input_ids"], batch["attention_mask"]).logits
    assert torch.equal(teacher.logits, expected[:, [2, 0, 1]])
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher.model.training


def test_a_trainer_asks_the_teacher_in_training_only(tmp_path, tiny_model):
    """With weight 1 on a teacher of other weights, one step moves towards its outputs, whatever the labels."""
    student, master = tiny_model("bert"), tiny_model("bert")
    with torch.no_grad():
        master.classifier.weight.mul_(-20)
    examples = Examples(student, 4)
    teacher = Teacher(master, [0, 1, 2], 1.0, 1.0)
    layout = read_layout(student)
    trainable = select(layout, "head")
    freeze_all_but(student, trainable)
    make = partial(
        SingleStageTrainer,
        groups=plan_groups(layout, trainable, lr=0.01, weight_decay=0.0),
        compute_loss_func=loss_for("single_label"),
        target="single_label",
        methods=[teacher],
    )
    steps = {"num_train_epochs": 20, "optim": "adamw_torch", "learning_rate": 0.01}
    trainer = stock_trainer(student, tmp_path, data=examples, make=make, **steps)
    batch = torch.utils.data.default_collate([examples[index] for index in range(4)])
    teacher.predict_batch(batch)
    wanted = teacher.logits

    def apart():
        with torch.no_grad():
            said = student.eval()(batch["input_ids"], batch["attention_mask"]).logits
        return distillation_loss(said, wanted, "single_label", 1.0).mean().item()

    before = apart()
    trainer.train()
    assert teacher.logits is not None
    assert apart() < 0.5 * before
    evaluated = trainer.evaluate(examples)["eval_loss"]
    assert teacher.logits is None
    with torch.no_grad():
        said = student(batch["input_ids"], batch["attention_mask"]).logits
    assert evaluated == pytest.approx(functional.cross_entropy(said, batch["labels"]).item(), rel=1e-4)
