"""Pruned weights stay 0 whatever the optimizer does."""

from functools import partial

import pytest
import torch
from stage_helpers import Examples, stock_trainer
from torch import nn

from hf_finetune.methods.pruning_masks import PruningMasks, apply_pruning_masks
from hf_finetune.models.layout import read_layout
from hf_finetune.models.pruning import pruning_masks, zero_smallest
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.trainer import SingleStageTrainer


def trained(model, tmp_path, methods):
    layout = read_layout(model)
    names = select(layout, "all", "train")
    freeze_all_but(model, names)
    make = partial(
        SingleStageTrainer,
        groups=plan_groups(layout, names, lr=0.05, weight_decay=0.1),
        optimizer_args={"momentum": 0.9},
        compute_loss_func=loss_for("single_label"),
        methods=methods,
    )
    trainer = stock_trainer(model, tmp_path, data=Examples(model, 16), make=make, max_steps=4)
    trainer.train()
    return model


@pytest.mark.defends("hf_finetune.methods.pruning_masks:apply_pruning_masks", why="Pruned weights stay 0")
def test_pruned_weights_stay_zero_and_the_others_change(tiny_model, tmp_path):
    model = tiny_model("bert")
    zero_smallest(model, 0.4)
    masked = [(weight, mask.clone(), weight.detach().clone()) for weight, mask in pruning_masks(model)]
    trained(model, tmp_path, [PruningMasks((weight, mask) for weight, mask, _ in masked)])
    for weight, mask, before in masked:
        assert torch.equal(weight == 0, mask)
        assert (weight != before)[~mask].any()


def test_without_the_callback_they_would_change(tiny_model, tmp_path):
    model = tiny_model("bert")
    zero_smallest(model, 0.4)
    masked = pruning_masks(model)
    trained(model, tmp_path, [])
    assert any((weight[mask] != 0).any() for weight, mask in masked)


def test_weights_outside_the_mask_are_set_to_zero():
    weight = nn.Parameter(torch.tensor([1.0, -2.0, float("nan")]))
    apply_pruning_masks([(weight, torch.tensor([False, True, True]))])
    assert weight.tolist() == [1.0, 0.0, 0.0]
