"""Freezing: no gradient, and no change of the buffers of a frozen module."""

import copy
import pickle

import pytest
import torch
from torch import nn

from hf_finetune.training.freezing import freeze_all_but, frozen_modules, release_eval_mode


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop_in = nn.Dropout(0.5)
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.second = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.drop_out = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.drop_out(self.second(self.first(self.drop_in(x)))))


def names_in_training(model):
    return {name for name, module in model.named_modules() if module.training}


def test_exactly_the_named_parameters_require_a_gradient():
    model = Net()
    freeze_all_but(model, ["second.0.weight", "fc.bias"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["second.0.weight", "fc.bias"]
    freeze_all_but(model, ["first.0.bias"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["first.0.bias"]


def test_frozen_modules_stay_in_eval_whatever_the_trainer_calls():
    """Traps 7 and 8: transformers 5.23 calls ``model.train()`` at every micro-step."""
    model = Net()
    freeze_all_but(model, ["second.0.weight", "fc.weight", "fc.bias"])
    for _ in range(3):
        model.train()
        assert names_in_training(model) == {"", "second", "second.0", "second.2", "drop_out", "fc"}
    for part in (model.first, model.first[1], model.second[1]):
        part.train()
        part.train(True)
    assert names_in_training(model) == {"", "second", "second.0", "second.2", "drop_out", "fc"}
    model.eval()
    assert names_in_training(model) == set()


def test_frozen_batch_norm_and_dropout_do_not_act():
    """Trap 7: a BatchNorm in train mode moves its statistics although its parameters are frozen."""
    model = Net()
    freeze_all_but(model, ["fc.weight", "fc.bias"])
    before = copy.deepcopy(model.state_dict())
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    outputs = [model.train()(inputs) for _ in range(4)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # between the frozen prefix and the head is no parameter but dropout, which is off before the head too
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_the_statistics_of_a_trained_batch_norm_change():
    model = Net()
    freeze_all_but(model, ["second.1.weight", "second.1.bias"])
    before = copy.deepcopy(model.state_dict())
    model.train()(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"second.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_release_lets_everything_train_again_and_leaves_gradients_alone():
    model = Net()
    freeze_all_but(model, ["fc.weight"])
    release_eval_mode(model)
    model.train()
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["fc.weight"]


def test_unfreezing_undoes_an_earlier_freeze():
    model = Net()
    freeze_all_but(model, ["fc.weight"])
    freeze_all_but(model, [name for name, _ in model.named_parameters()])
    model.train()
    assert names_in_training(model) == {name for name, _ in model.named_modules()} - {"drop_in"}
    assert frozen_modules(model) == [model.drop_in]


def test_a_frozen_model_can_be_copied_and_pickled():
    model = Net()
    freeze_all_but(model, ["fc.weight"])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        release_eval_mode(model)
        other.train()
        assert not other.first[1].training
        release_eval_mode(other)
        other.train()
        assert other.first[1].training
        model.eval()
        freeze_all_but(model, ["fc.weight"])


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ([], "trainable must name at least one parameter."),
        (["fc.wight", "fc.bias"], "trainable must name parameters of the model. Got fc.wight."),
    ],
)
def test_an_untrainable_selection_is_an_error(trainable, message):
    """Trap 6: with everything frozen the Trainer fails in the backward pass with an obscure RuntimeError."""
    model = Net()
    with pytest.raises(ValueError) as caught:
        freeze_all_but(model, trainable)
    assert str(caught.value) == message
    assert all(parameter.requires_grad for parameter in model.parameters())
