"""Weights and probabilities in the loss of single-label data: exact for any division of a step."""

import pytest
import torch
from torch.nn import functional

from hf_finetune.data.distributed_sampling import count_labels
from hf_finetune.methods.class_balance import ClassBalance, balanced_loss
from hf_finetune.methods.distillation import distillation_loss, loss_with_teacher
from hf_finetune.methods.r_drop import r_drop_loss, symmetric_kl
from hf_finetune.targets.losses import label_weights, loss_for

CLASSES = torch.tensor([0, 2, 1, 2, 0])
WEIGHTS = torch.tensor([1.0, 0.5, 3.0, 0.0, 2.0])
SHARES = functional.one_hot(CLASSES, 3) * WEIGHTS[:, None]
LOSSES = {
    "plain": loss_for("single_label"),
    "smoothed": loss_for("single_label", 0.2),
    "class weights": balanced_loss("single_label", ClassBalance(class_weights=(1.0, 2.0, 4.0))),
    "focal": balanced_loss("single_label", ClassBalance(gamma=2.0)),
    "logit adjustment": balanced_loss("single_label", ClassBalance(logit_adjustments=(0.1, -0.4, 0.3)), 0.1),
}


def logits(rows=5, seed=0):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))


def single(loss, scores, label):
    return loss((scores[None],), torch.tensor([label]))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_weighted_mean_of_the_losses_of_the_examples(name):
    loss, scores = LOSSES[name], logits()
    each = torch.stack([single(loss, row, label) for row, label in zip(scores, CLASSES, strict=True)])
    wanted = (WEIGHTS * each).sum() / WEIGHTS.sum()
    torch.testing.assert_close(loss((scores,), SHARES), wanted)


@pytest.mark.parametrize("name", LOSSES)
def test_it_does_not_depend_on_how_a_step_is_divided(name):
    loss, scores = LOSSES[name], logits()
    batches = [{"labels": SHARES[:3]}, {"labels": SHARES[3:4]}, {"labels": SHARES[4:]}]
    items = count_labels(batches, lambda number: number, "single_label")
    assert items == WEIGHTS.sum()
    parts = [loss((scores[:3],), SHARES[:3], items), loss((scores[3:4],), SHARES[3:4], items)]
    parts.append(loss((scores[4:],), SHARES[4:], items))
    torch.testing.assert_close(sum(parts), loss((scores,), SHARES))


def test_probabilities_are_trained_on_by_their_cross_entropy():
    shares = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.9, 0.1]])
    wanted = functional.cross_entropy(logits(2), shares)
    torch.testing.assert_close(loss_for("single_label")((logits(2),), shares), wanted)
    smoothed = functional.cross_entropy(logits(2), shares, label_smoothing=0.3)
    torch.testing.assert_close(loss_for("single_label", 0.3)((logits(2),), shares), smoothed)


def test_a_filler_and_a_step_of_weight_0_have_no_loss():
    filled = torch.cat([SHARES, torch.full((1, 3), torch.nan)])
    torch.testing.assert_close(label_weights(filled, "single_label"), torch.cat([WEIGHTS, torch.zeros(1)]))
    for loss in LOSSES.values():
        torch.testing.assert_close(loss((logits(6),), filled), loss((logits(6)[:5],), SHARES))
    items = count_labels([{"labels": SHARES[3:4]}], lambda number: number, "single_label")
    assert loss_for("single_label")((logits(1),), SHARES[3:4], items) == 0


def test_a_teacher_and_two_passes_weight_examples_equally():
    class Teacher:
        logits, weight, temperature = logits(seed=1), 0.25, 2.0

    hard = LOSSES["plain"]
    soft = distillation_loss(logits(), Teacher.logits, "single_label", 2.0)
    wanted = 0.75 * hard((logits(),), SHARES) + 0.25 * (WEIGHTS * soft).sum() / WEIGHTS.sum()
    taught = loss_with_teacher(hard, Teacher, "single_label")
    torch.testing.assert_close(taught((logits(),), SHARES), wanted)

    one, other = logits(seed=2), logits(seed=3)
    apart = (WEIGHTS * symmetric_kl(one, other, "single_label")).sum() / WEIGHTS.sum()
    mean = (hard((one,), SHARES) + hard((other,), SHARES)) / 2
    twice = r_drop_loss(hard, 0.7, "single_label")
    torch.testing.assert_close(twice((torch.cat([one, other]),), SHARES), mean + 0.7 * apart)


def test_unknown_classes_of_multi_label_data_do_not_count():
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    scores = torch.tensor([[0.3, 5.0], [-1.0, 0.2]])
    each = functional.binary_cross_entropy_with_logits(scores, labels.nan_to_num(), reduction="none")
    wanted = (each[0, 0] + each[1, 0] + each[1, 1]) / 3
    torch.testing.assert_close(loss_for("multi_label")((scores,), labels), wanted)
    assert count_labels([{"labels": labels}], lambda number: number, "multi_label") == 3
