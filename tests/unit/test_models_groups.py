"""Parameter groups for a user's optimizer."""

import pytest
import timm
import torch

from hf_finetune import parameter_groups
from hf_finetune.errors import InputError
from hf_finetune.models.layout import head_names, read_layout


def named(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{**group, "params": [names[id(parameter)] for parameter in group["params"]]} for group in groups]


@pytest.mark.parametrize("name", ["bert", "albert", "timm/test_resnet", "vit"])
def test_every_parameter_is_in_one_group_with_its_rate_and_decay(tiny_model, name):
    model = tiny_model(name)
    groups = named(model, parameter_groups(model, lr=0.1, weight_decay=0.05, layer_decay=0.5))
    held = {name: group for group in groups for name in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(held) == len(list(model.parameters()))
    layout = read_layout(model)
    for parameter in layout.parameters:
        group = held[parameter.name]
        assert group["lr"] == 0.1 * 0.5 ** (layout.head_group - parameter.group)
        assert group["weight_decay"] == (0.05 if parameter.decays else 0.0)
        assert group["name"] == ("head" if parameter.name in head_names(model) else "backbone")
        assert group["layers"] == layout.groups[parameter.group]


def test_head_and_backbone_never_share_a_group(tiny_model):
    model = tiny_model("bert")
    groups = named(model, parameter_groups(model, lr=0.1, weight_decay=0.0))
    assert [(group["name"], group["layers"]) for group in groups] == [
        ("head", "head"),
        ("backbone", "input..bert.encoder.layer.1"),
    ]
    assert groups[0]["params"] == head_names(model)


def test_a_selector_and_rates_for_head_and_backbone(tiny_model):
    model = tiny_model("bert")
    groups = parameter_groups(model, "last:1", {"head": 0.1, "backbone": [0.001, 0.01]}, weight_decay=0.0)
    assert [(group["name"], group["layers"], group["lr"]) for group in groups] == [
        ("head", "head", 0.1),
        ("backbone", "bert.encoder.layer.1", 0.01),
    ]


def test_a_torch_optimizer_takes_them_and_keeps_their_names(tiny_model):
    optimizer = torch.optim.AdamW(parameter_groups(tiny_model("bert"), lr=0.1))
    assert [group["name"] for group in optimizer.param_groups] == ["head", "head", "backbone", "backbone"]
    again = torch.optim.AdamW(parameter_groups(tiny_model("bert"), lr=0.2))
    again.load_state_dict(optimizer.state_dict())
    assert {group["lr"] for group in again.param_groups} == {0.1}


def test_models_of_timm_alone_and_of_plain_torch_will_do():
    model = timm.create_model("test_resnet", num_classes=3)
    groups = named(model, parameter_groups(model, "last:1", lr=0.1, weight_decay=0.0))
    assert [(group["name"], group["layers"]) for group in groups] == [
        ("head", "head"),
        ("backbone", "layer4.0"),
    ]
    assert groups[0]["params"] == ["fc.weight", "fc.bias"]
    plain = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4))
    groups = named(plain, parameter_groups(torch.nn.DataParallel(plain), lr=0.1, weight_decay=0.0))
    assert [(group["name"], group["params"]) for group in groups] == [
        ("head", ["2.weight", "2.bias"]),
        ("backbone", ["0.weight", "0.bias"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"train": "hed"},
            "train must be a valid selector. Got 'hed'. Nearest: 'head'. "
            "Valid: head, all, norms, biases, last:N, layers[A:B], /regular expression/.",
        ),
        ({"lr": 0}, "lr must be above 0. Got 0."),
        (
            {"lr": {"head": 0.1, "backbon": 1}},
            "lr.backbone must be set.\nlr.backbon must be a known field.",
        ),
        ({"lr": {"head": -1, "backbone": 0.1}}, "lr.head must be above 0. Got -1."),
    ],
)
def test_messages_for_wrong_arguments(tiny_model, arguments, message):
    with pytest.raises(InputError) as caught:
        parameter_groups(tiny_model("bert"), **arguments)
    assert str(caught.value) == message


def test_layer_decay_with_a_rate_for_the_backbone_is_an_error(tiny_model):
    with pytest.raises(ValueError) as caught:
        parameter_groups(tiny_model("bert"), lr={"head": 0.1, "backbone": 0.1}, layer_decay=0.9)
    assert str(caught.value) == "layer_decay must be 1 when lr has a rate for the backbone. Got 0.9."
