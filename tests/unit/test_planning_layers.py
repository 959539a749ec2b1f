"""The layer group of each parameter name."""

from hf_finetune.planning.layers import Layout, Parameter, assign_groups


def test_modules_between_layers_belong_to_the_next_layer_or_else_the_last():
    names = ["stem.w", "body.0.w", "down.w", "body.1.w", "body.1.b", "norm.w", "fc.w"]
    groups, titles = assign_groups(names, ["body.0", "body.1"], ["fc.w"])
    assert titles == ("input", "body.0", "body.1", "head")
    assert [titles[groups[name]] for name in names] == [
        "input",
        "body.0",
        "body.1",
        "body.1",
        "body.1",
        "body.1",
        "head",
    ]


def test_a_parameter_that_acts_from_the_input_on_is_of_the_input_wherever_it_is_registered():
    names = ["layers.0.w", "layers.1.w", "rel_embeddings.w", "fc.w"]
    groups, titles = assign_groups(names, ["layers.0", "layers.1"], ["fc.w"], ["rel_embeddings.w"])
    assert titles == ("input", "layers.0", "layers.1", "head")
    assert groups == {"layers.0.w": 1, "layers.1.w": 2, "rel_embeddings.w": 0, "fc.w": 3}


def test_a_layer_whose_name_begins_like_another_is_its_own():
    names = [f"h.{index}.w" for index in (1, 10, 11)]
    groups, titles = assign_groups([*names, "score.w"], ["h.1", "h.10", "h.11"], ["score.w"])
    assert titles == ("h.1", "h.10", "h.11", "head")
    assert list(groups.values()) == [0, 1, 2, 3]


def test_layers_without_parameters_are_dropped_but_the_head_stays():
    groups, titles = assign_groups(["a.w", "c.w"], ["a", "b", "c"], [])
    assert (dict(groups), titles) == ({"a.w": 0, "c.w": 1}, ("a", "c", "head"))


def test_a_layout_counts_elements_and_knows_biases_by_name():
    layout = Layout(
        (Parameter("a.weight", 6, 0), Parameter("a.bias", 2, 0), Parameter("bias", 1, 1)), ("a", "head")
    )
    assert (layout.size, layout.backbone_group_count) == (9, 1)
    assert [parameter.is_bias for parameter in layout.parameters] == [False, True, True]
