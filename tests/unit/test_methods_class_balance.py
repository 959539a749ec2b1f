"""Class imbalance: weights, losses and sampling, by hand or against the reference implementation."""

import collections
import math

import numpy as np
import pytest
import torch
from removals import mean_loss
from sklearn.utils.class_weight import compute_class_weight
from stage_helpers import Examples
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss
from transformers import TrainerCallback, TrainingArguments

from hf_finetune.data.distributed_sampling import count_labels
from hf_finetune.methods.class_balance import (
    BalancedSampler,
    ClassBalance,
    balanced_loss,
    build_class_balance,
    class_weights,
    effective_numbers,
)
from hf_finetune.methods.distillation import Teacher, loss_with_teacher
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.trainer import SingleStageTrainer

LABELS = [0, 1, 1, 2, 2, 2]
NAMES = ("a", "b", "c")
LOGITS = torch.tensor(
    [[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [1.0, 1.0, 4.0], [0.0, 0.0, 0.0], [3.0, -2.0, 0.1], [0.5, 0.6, 0.7]]
)
CLASSES = torch.tensor(LABELS)
SHARES = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])
HOT = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 1]])


def balance(method, labels=LABELS, target="single_label", **fields):
    return build_class_balance(BalanceSpec(method=method, **fields), target, labels, NAMES)


# --- Weights ----------------------------------------------------------------------------------------------------


def test_class_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(LABELS))
    assert balance("class_weights").class_weights == pytest.approx(expected)
    assert balance("class_weights").class_weights == pytest.approx([2.0, 1.0, 2 / 3])


def test_effective_numbers_by_hand():
    """With beta 1/2 an example is worth half the one before it: 1, 1 + 1/2, 1 + 1/2 + 1/4."""
    assert effective_numbers([1, 2, 3], 0.5) == [1.0, 1.5, 1.75]
    # 1, 2/3 and 4/7, times 6 / (1 + 2 x 2/3 + 3 x 4/7) = 126/85
    expected = [126 / 85, 84 / 85, 72 / 85]
    assert balance("effective_number", beta=0.5).class_weights == pytest.approx(expected)


def test_effective_numbers_equal_the_papers_up_to_a_common_factor():
    """The authors' code: (1 - beta) / (1 - beta^n), scaled to sum to the number of classes."""
    sizes = np.array([500, 50, 5])
    weights = (1 - 0.99) / (1 - np.power(0.99, sizes))
    weights = weights / weights.sum() * 3
    found = np.array(class_weights(sizes.tolist(), 555, "single_label", 0.99))
    assert found / found.sum() * 3 == pytest.approx(weights)
    assert (found * sizes).sum() / 555 == pytest.approx(1.0)


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
def test_effective_numbers_are_between_equal_weights_and_class_weights(target):
    sizes, count = [50, 5, 3], 58
    assert class_weights(sizes, count, target, 0.0) == pytest.approx([1.0, 1.0, 1.0])
    whole = class_weights(sizes, count, target)
    assert class_weights(sizes, count, target, 1 - 1e-9) == pytest.approx(whole, rel=1e-5)


def test_several_labels_are_balanced_separately():
    labels = [[0, 2], [2], [0, 1, 2], [2]]
    assert balance("class_weights", labels, "multi_label").class_weights == (1.0, 3.0, 0.25)


def test_a_class_without_examples_breaks_nothing():
    """4 examples of 2 classes: the third has no weight to speak of, and the others those of scikit-learn."""
    factors = balance("class_weights", [0, 1, 1, 1]).class_weights
    assert factors[:2] == pytest.approx([2.0, 2 / 3])
    assert math.isfinite(balance("logit_adjustment", [0, 1, 1, 1]).logit_adjustments[2])


def test_own_weights_are_taken_as_they_are():
    assert balance("class_weights", weights={"b": 3.0}).class_weights == (1.0, 3.0, 1.0)
    assert balance("focal", weights={"c": 0.5}) == ClassBalance(class_weights=(1.0, 1.0, 0.5), gamma=2.0)


def test_none_changes_nothing():
    assert balance("none") is None
    loss = balanced_loss("single_label", None, 0.1)
    assert torch.equal(loss((LOGITS,), CLASSES), loss_for("single_label", 0.1)((LOGITS,), CLASSES))


# --- Losses -----------------------------------------------------------------------------------------------------


def test_the_weighted_loss_is_torchs_sum_over_all_labels_of_the_batch():
    found = balanced_loss("single_label", balance("class_weights"))({"logits": LOGITS}, CLASSES, 6)
    weight = torch.tensor([2.0, 1.0, 2 / 3])
    expected = functional.cross_entropy(LOGITS, CLASSES, weight, reduction="sum")
    torch.testing.assert_close(found, expected / 6)


def test_with_smoothed_labels_the_complete_loss_has_the_weight_of_the_class():
    weight = torch.tensor([2.0, 1.0, 2 / 3])
    loss = balanced_loss("single_label", balance("class_weights"), 0.2)
    each = functional.cross_entropy(LOGITS, CLASSES, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(loss((LOGITS,), CLASSES, 6), (each * weight[CLASSES]).sum() / 6)
    hot = functional.one_hot(CLASSES, 3).float()
    torch.testing.assert_close(loss((LOGITS,), hot, 6), loss((LOGITS,), CLASSES, 6))


def test_smoothed_labels_teach_the_right_class_however_far_apart_the_weights_are():
    """torch weighs what is spread by the class that it goes to: a scarce one then wins the examples of the others."""
    loss = balanced_loss("single_label", ClassBalance(class_weights=(0.505, 50.0)), 0.1)
    logits = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def closure():
        optimizer.zero_grad()
        value = loss((logits,), torch.tensor([0]))
        value.backward()
        return value

    optimizer.step(closure)
    assert logits.softmax(dim=1)[0, 0].item() == pytest.approx(0.95, abs=1e-3)


def test_the_weighted_loss_of_shares_is_torchs():
    loss = balanced_loss("single_label", ClassBalance(class_weights=(2.0, 1.0, 0.5)))
    expected = functional.cross_entropy(LOGITS[:3], SHARES, torch.tensor([2.0, 1.0, 0.5]), reduction="sum")
    torch.testing.assert_close(loss((LOGITS[:3],), SHARES), expected / 3)
    torch.testing.assert_close(loss((LOGITS[:3],), SHARES, 6), expected / 6)


def test_the_weights_of_several_labels_are_torchs_pos_weight():
    loss = balanced_loss("multi_label", ClassBalance(class_weights=(2.0, 1.0, 0.5)))
    expected = functional.binary_cross_entropy_with_logits(
        LOGITS, HOT, pos_weight=torch.tensor([2.0, 1.0, 0.5])
    )
    torch.testing.assert_close(loss((LOGITS,), HOT), expected)


def test_the_focal_loss_by_hand():
    """p = 3/4 of the correct class: (1/4)^2 x -log(3/4)."""
    logits = torch.tensor([[math.log(3.0), 0.0]])
    loss = balanced_loss("single_label", ClassBalance(gamma=2.0))
    assert loss((logits,), torch.tensor([0])).item() == pytest.approx(-math.log(0.75) / 16, rel=1e-5)
    loss = balanced_loss("single_label", ClassBalance(class_weights=(5.0, 1.0), gamma=2.0))
    assert loss((logits,), torch.tensor([0])).item() == pytest.approx(-5 * math.log(0.75) / 16, rel=1e-5)


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
def test_a_focal_loss_without_an_exponent_is_the_usual_one(target):
    labels = CLASSES if target == "single_label" else HOT
    found = balanced_loss(target, ClassBalance(gamma=0.0))((LOGITS,), labels)
    torch.testing.assert_close(found, loss_for(target)((LOGITS,), labels))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_the_focal_loss_of_several_labels_is_torchvisions(gamma):
    found = balanced_loss("multi_label", ClassBalance(gamma=gamma))((LOGITS,), HOT)
    torch.testing.assert_close(
        found, sigmoid_focal_loss(LOGITS, HOT, alpha=-1, gamma=gamma, reduction="mean")
    )


def test_the_focal_loss_of_shares_is_the_share_of_each_class():
    loss = balanced_loss("single_label", ClassBalance(gamma=2.0))
    hot = functional.one_hot(CLASSES, 3).float()
    torch.testing.assert_close(loss((LOGITS,), hot), loss((LOGITS,), CLASSES))


def test_the_focal_loss_without_examples_is_zero():
    """With several tasks, a batch may have no example of one."""
    loss = balanced_loss("single_label", ClassBalance(gamma=2.0))
    assert loss((torch.zeros(0, 3),), torch.zeros(0, dtype=torch.long), 4) == 0.0


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_of_certain_predictions_has_a_gradient(target, gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    labels = torch.tensor([0, 0]) if target == "single_label" else torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    balanced_loss(target, ClassBalance(gamma=gamma))((logits,), labels).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1, 0] < 0


def test_logit_adjustment_by_hand():
    """The classes have 1/6, 2/6 and 3/6 of the examples."""
    shifts = [2 * math.log(share / 6) for share in (1, 2, 3)]
    made = balance("logit_adjustment", tau=2.0)
    assert made.logit_adjustments == pytest.approx(shifts)
    found = balanced_loss("single_label", made, 0.1)((LOGITS,), CLASSES)
    expected = functional.cross_entropy(LOGITS + torch.tensor(shifts), CLASSES, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_logit_adjustment_of_several_labels_takes_the_odds_of_each():
    made = balance("logit_adjustment", [[0, 2], [2], [0, 1], [2]], "multi_label")
    assert made.logit_adjustments == pytest.approx([0.0, math.log(1 / 3), math.log(3.0)])
    found = balanced_loss("multi_label", made)((LOGITS,), HOT)
    shifted = LOGITS + torch.tensor(made.logit_adjustments)
    torch.testing.assert_close(found, functional.binary_cross_entropy_with_logits(shifted, HOT))


KINDS = {
    "weights": ClassBalance(class_weights=(2.0, 1.0, 0.5)),
    "focal": ClassBalance(class_weights=(2.0, 1.0, 0.5), gamma=2.0),
    "logit adjustment": ClassBalance(logit_adjustments=(-2.0, -1.0, -0.5)),
}


@pytest.mark.defends(
    "hf_finetune.methods.class_balance:balanced_loss",
    why="The weighted loss is a sum over the labels of the whole batch",
    by=mean_loss,
    ids=["weights-single_label"],
)
@pytest.mark.parametrize("target", ["single_label", "multi_label"])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_add_up_to_it(kind, target):
    """Trap 12: a mean over the weights of each part would not."""
    loss, labels = balanced_loss(target, KINDS[kind]), CLASSES if target == "single_label" else HOT
    items = labels.numel()
    parts = [loss((LOGITS[a:b],), labels[a:b], items) for a, b in ((0, 1), (1, 4), (4, 6))]
    torch.testing.assert_close(sum(parts), loss((LOGITS,), labels))


@pytest.mark.parametrize(
    ("target", "labels", "filler"),
    [
        ("single_label", CLASSES[:3], torch.tensor([-100])),
        ("single_label", SHARES, torch.full((1, 3), math.nan)),
        ("multi_label", HOT[:3], torch.full((1, 3), math.nan)),
    ],
    ids=["classes", "shares", "several labels"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_filler_changes_neither_loss_nor_gradient(kind, target, labels, filler):
    loss, leaf = balanced_loss(target, KINDS[kind]), LOGITS[:4].clone().requires_grad_()
    items = count_labels([{"labels": labels}], lambda number: number)
    found = loss((leaf,), torch.cat([labels, filler]), items)
    found.backward()
    torch.testing.assert_close(found.detach(), loss((LOGITS[:3],), labels, items), rtol=1e-6, atol=0)
    assert leaf.grad[:3].any() and not leaf.grad[3:].any()


def test_distillation_is_added_to_a_balanced_loss():
    loss = balanced_loss("single_label", KINDS["weights"])
    teacher = Teacher(torch.nn.Linear(1, 1), [0, 1, 2], 2.0, 0.25)
    teacher.logits = LOGITS
    found = loss_with_teacher(loss, teacher, "single_label")((LOGITS,), CLASSES)
    torch.testing.assert_close(found, 0.75 * loss((LOGITS,), CLASSES))


# --- Under the Trainer ------------------------------------------------------------------------------------------


class Norms(TrainerCallback):
    def __init__(self):
        self.norms = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [p.grad.norm() for p in kwargs["model"].parameters() if p.grad is not None]
        self.norms.append(torch.stack(gradients).norm().item())


@pytest.mark.defends("hf_finetune.methods.class_balance:balanced_loss", by=mean_loss, ids=["bert-weights"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_the_gradient_does_not_depend_on_the_accumulation(tmp_path, tiny_model, name, kind):
    """Traps 11 and 12; seven examples, so that the last part is smaller."""
    found = []
    for batch_size, accumulation in ((7, 1), (2, 4)):
        model, watch = tiny_model(name), Norms()
        layout = read_layout(model)
        trainer = SingleStageTrainer(
            groups=plan_groups(layout, layout.names(), 0.01),
            compute_loss_func=balanced_loss("single_label", KINDS[kind]),
            model=model,
            args=TrainingArguments(
                str(tmp_path / str(batch_size)),
                per_device_train_batch_size=batch_size,
                gradient_accumulation_steps=accumulation,
                num_train_epochs=1,
                max_grad_norm=0.0,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
            ),
            train_dataset=Examples(model, 7),
            callbacks=[watch],
        )
        trainer.train()
        assert len(watch.norms) == 1
        found.append(watch.norms[0])
    assert found[0] > 0
    assert found[1] == pytest.approx(found[0], rel=1e-4)


# --- Sampling ------------------------------------------------------------------------------------------------------

SKEWED = [0] * 40 + [1] * 9 + [2] * 1


def test_every_class_is_drawn_equally_often_and_its_examples_in_turn():
    sampler = BalancedSampler(SKEWED, seed=3)
    drawn = list(sampler)
    assert len(sampler) == len(drawn) == 50
    counts = collections.Counter(SKEWED[index] for index in drawn)
    assert sorted(counts.values()) == [16, 17, 17]
    often = collections.Counter(drawn)
    assert {often[index] for index in range(40)} == {0, 1}
    assert {often[index] for index in range(40, 49)} <= {1, 2}
    assert often[49] == counts[2]
    assert drawn != sorted(drawn, key=lambda index: SKEWED[index])


@pytest.mark.defends("hf_finetune.methods.class_balance:BalancedSampler.set_epoch")
def test_every_example_is_drawn_over_the_epochs():
    sampler, seen = BalancedSampler(SKEWED, seed=3), set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        seen |= set(sampler)
    assert seen == set(range(50))


@pytest.mark.defends(
    "hf_finetune.methods.class_balance:BalancedSampler.set_epoch",
    why="Each epoch samples other examples of each class",
)
def test_draws_depend_on_seed_and_epoch_only():
    one, other = BalancedSampler(SKEWED, 3), BalancedSampler(SKEWED, 3)
    torch.manual_seed(1)
    first = list(one)
    torch.manual_seed(2)
    assert list(other) == first == list(one)
    other.set_epoch(1)
    assert list(other) != first
    assert list(BalancedSampler(SKEWED, 4)) != first


def test_sampled_examples_are_batched_by_length():
    lengths = torch.randint(5, 100, (600,), generator=torch.Generator().manual_seed(0)).tolist()
    classes = [int(index < 60) for index in range(600)]

    def padded(order):
        batches = [order[start : start + 8] for start in range(0, 600, 8)]
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    together, apart = (list(BalancedSampler(classes, 3, given, 8)) for given in (lengths, None))
    assert sum(classes[index] for index in together) == 300
    assert padded(together) < 0.8 * padded(apart)


def test_fewer_examples_than_classes_are_drawn_too():
    assert len(list(BalancedSampler([0, 1, 2, 2], 0))) == 4
    assert sorted(BalancedSampler([5, 7], 0)) == [0, 1]


def test_the_trainer_uses_the_order_of_the_sampler(tmp_path, tiny_model):
    trainer = SingleStageTrainer(
        groups=(),
        methods=[ClassBalance(classes=(0, 0, 0, 1))],
        lengths=[1, 2, 3, 4],
        model=tiny_model("bert"),
        args=TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=3,
            seed=7,
            report_to="none",
        ),
        train_dataset=Examples(tiny_model("bert"), 4),
    )
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, BalancedSampler)
    assert (sampler.seed, sampler.lengths, sampler.examples_per_step) == (7, [1, 2, 3, 4], 6)
    assert list(sampler) == list(BalancedSampler([0, 0, 0, 1], 7, [1, 2, 3, 4], 6))
