"""Parameter groups: rates by depth, decay by kind."""

import pytest

from hf_finetune.planning.groups import ParameterGroup, layer_rates, plan_groups
from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.recipe.schedule import ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.stage_fields import RatesSpec

LAYOUT = Layout(
    parameters=(
        Parameter("embed", 8, 0, decays=False),
        Parameter("layer.0.weight", 4, 1),
        Parameter("layer.0.bias", 2, 1, decays=False),
        Parameter("layer.1.weight", 4, 2),
        Parameter("fc.weight", 6, 3),
        Parameter("fc.bias", 3, 3, decays=False),
    ),
    groups=("input", "layer.0", "layer.1", "head"),
)


def test_without_layer_decay_there_is_one_group_that_decays_and_one_that_does_not():
    groups = plan_groups(LAYOUT, LAYOUT.names(), lr=0.1, weight_decay=0.05)
    assert groups == (
        ParameterGroup("layer.0..head", 0.1, 0.05, ("layer.0.weight", "layer.1.weight", "fc.weight"), 14),
        ParameterGroup("input..head", 0.1, 0.0, ("embed", "layer.0.bias", "fc.bias"), 13),
    )


def test_layer_decay_multiplies_the_rate_once_for_each_layer_below_the_head():
    groups = plan_groups(LAYOUT, LAYOUT.names(), lr=0.8, weight_decay=0.05, layer_decay=0.5)
    assert [(group.layers, group.lr, group.weight_decay, group.parameters) for group in groups] == [
        ("head", 0.8, 0.05, ("fc.weight",)),
        ("head", 0.8, 0.0, ("fc.bias",)),
        ("layer.1", 0.4, 0.05, ("layer.1.weight",)),
        ("layer.0", 0.2, 0.05, ("layer.0.weight",)),
        ("layer.0", 0.2, 0.0, ("layer.0.bias",)),
        ("input", 0.1, 0.0, ("embed",)),
    ]


def test_without_weight_decay_a_layer_is_one_group():
    groups = plan_groups(LAYOUT, ["fc.weight", "fc.bias"], lr=0.1)
    assert groups == (ParameterGroup("head", 0.1, 0.0, ("fc.weight", "fc.bias"), 9),)


def test_no_group_is_empty_when_only_biases_are_trained():
    """Trap 6: ZeRO-3 cannot index an empty first group, which the stock Trainer makes here."""
    groups = plan_groups(LAYOUT, ["layer.0.bias", "fc.bias"], lr=0.1, weight_decay=0.05)
    assert groups == (ParameterGroup("layer.0..head", 0.1, 0.0, ("layer.0.bias", "fc.bias"), 5),)


def test_an_adapter_has_its_own_parameter_group():
    adapter = Parameter("layer.0.lora_A.default.weight", 5, 1, is_adapter=True)
    other = Parameter("layer.1.lora_A.default.weight", 7, 2, is_adapter=True)
    layout = Layout((*LAYOUT.parameters, adapter, other), LAYOUT.groups, adapter="lora")
    chosen = ["fc.weight", "fc.bias", adapter.name, other.name]
    groups = plan_groups(layout, chosen, lr=0.1, weight_decay=0.05)
    assert groups == (
        ParameterGroup("head", 0.1, 0.05, ("fc.weight",), 6),
        ParameterGroup("head", 0.1, 0.0, ("fc.bias",), 3),
        ParameterGroup("lora in layer.0..layer.1", 0.1, 0.05, (adapter.name, other.name), 12),
    )
    groups = plan_groups(layout, layout.names(), lr=0.8, layer_decay=0.5)
    assert [(group.layers, group.lr) for group in groups] == [
        ("head", 0.8),
        ("layer.1", 0.4),
        ("lora in layer.1", 0.4),
        ("layer.0", 0.2),
        ("lora in layer.0", 0.2),
        ("input", 0.1),
    ]


@pytest.mark.parametrize("layer_decay", [0.0, -0.5, 1.01])
def test_layer_decay_is_a_factor(layer_decay):
    with pytest.raises(ValueError) as caught:
        plan_groups(LAYOUT, ["fc.bias"], lr=0.1, layer_decay=layer_decay)
    assert str(caught.value) == f"layer_decay must be in (0, 1]. Got {layer_decay!r}."


def test_a_name_that_the_model_does_not_have_is_an_error():
    with pytest.raises(ValueError) as caught:
        plan_groups(LAYOUT, ["fc.bias", "fc.wieght"], lr=0.1)
    assert str(caught.value) == "trainable must name parameters of the model. Got fc.wieght."


def even_mults(start, stop, n):
    """The formula of fastcore and fastai 2.7; for one group it gives the second value."""
    if n == 1:
        return [stop]
    step = (stop / start) ** (1 / (n - 1))
    return [start * step**index for index in range(n)]


@pytest.mark.parametrize("layer_groups", [1, 2, 3, 13])
def test_a_range_is_spread_by_equal_factors_as_fastai_spreads_a_slice(layer_groups):
    rates = layer_rates(layer_groups, RatesSpec(head=0.5, backbone=(1e-5, 1e-3)))
    assert rates == pytest.approx((*even_mults(1e-5, 1e-3, layer_groups), 0.5), rel=1e-12)
    assert rates[-2:] == (1e-3, 0.5)
    assert layer_groups == 1 or rates[0] == 1e-5


def test_one_rate_for_the_backbone_is_that_of_every_layer_group():
    assert layer_rates(3, RatesSpec(head=0.1, backbone=0.01)) == (0.01, 0.01, 0.01, 0.1)
    assert layer_rates(0, RatesSpec(head=0.1, backbone=0.01)) == (0.1,)
    assert layer_rates(2, 0.8, 0.5) == (0.2, 0.4, 0.8)


def test_the_rate_of_a_layer_does_not_depend_on_the_other_trained_layers():
    rates = RatesSpec(head=0.5, backbone=(0.1, 0.4))
    whole = plan_groups(LAYOUT, LAYOUT.names(), lr=rates)
    assert [(group.layers, group.lr) for group in whole] == [
        ("head", 0.5),
        ("layer.1", 0.4),
        ("layer.0", pytest.approx(0.2)),
        ("input", 0.1),
    ]
    some = plan_groups(LAYOUT, ["layer.0.weight", "fc.weight"], lr=rates)
    assert [(group.layers, group.lr) for group in some] == [("head", 0.5), ("layer.0", whole[2].lr)]


def test_a_rate_for_the_backbone_excludes_layer_decay():
    with pytest.raises(ValueError) as caught:
        plan_groups(LAYOUT, ["fc.bias"], lr=RatesSpec(head=0.1, backbone=0.01), layer_decay=0.9)
    assert str(caught.value) == "layer_decay must be 1 when lr has a rate for the backbone. Got 0.9."


def test_schedules_divide_the_head_from_the_backbone_only_where_they_differ():
    head, backbone = ScheduleSpec(name="constant"), ScheduleSpec(name="cosine")
    groups = plan_groups(LAYOUT, LAYOUT.names(), 0.1, schedule=SchedulesSpec(head=head, backbone=backbone))
    assert [(group.layers, group.schedule) for group in groups] == [
        ("head", head),
        ("input..layer.1", backbone),
    ]
    groups = plan_groups(LAYOUT, LAYOUT.names(), 0.1, schedule=SchedulesSpec(head=head, backbone=head))
    assert [(group.layers, group.schedule) for group in groups] == [("input..head", head)]
    assert [group.schedule for group in plan_groups(LAYOUT, LAYOUT.names(), 0.1, schedule=head)] == [head]
