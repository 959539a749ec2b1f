"""Pruning: the removed neurons, the config of a narrower model, and the weights that become 0."""

from collections import defaultdict

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_finetune.models.build import build_skeleton
from hf_finetune.models.layout import read_layout
from hf_finetune.models.pruning import (
    NO_WIDTH,
    CannotNarrowError,
    narrow_config,
    narrow_model,
    narrow_weights,
    pruning_masks,
    zero_smallest,
)
from hf_finetune.tasks import TASKS

TEXTS = ("bert", "roberta", "electra", "albert", "deberta-v2", "distilbert", "modernbert", "gpt2")
IMAGES = ("vit", "deit", "dinov2", "swin", "timm/test_vit", "timm/swin_tiny_patch4_window7_224")
WITHOUT_WIDTH = ("resnet", "convnext", "timm/test_resnet", "timm/test_efficientnet", "timm/vgg11")


def inputs_of(name):
    torch.manual_seed(1)
    if name in TEXTS:
        ids = torch.tensor([[2, 5, 9, 12, 3], [2, 7, 6, 11, 3]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def logits_of(model, name):
    with torch.no_grad():
        return model.eval()(**inputs_of(name)).logits


def places_of(model, narrow):
    """Return for each block the weights and dimensions in which two models differ."""
    shapes = {name: value.shape for name, value in narrow.state_dict().items()}
    blocks = defaultdict(list)
    for name, value in model.state_dict().items():
        for dimension, (before, after) in enumerate(zip(value.shape, shapes[name], strict=True)):
            if before != after:
                parts = name.split(".")
                last = max(index for index, part in enumerate(parts) if part.isdigit())
                blocks[".".join(parts[: last + 1])].append((name, dimension))
    return blocks


# --- Choice of neurons -------------------------------------------------------------------------------------------


def test_neurons_with_the_largest_input_and_output_weights_are_kept():
    # The norms of the weights in are 5, 1, 2 and 10, of those out 0.1, 5, 1 and 1: the products 0.5, 5, 2 and 10.
    weights = {
        "layer.0.up.weight": torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [6.0, 8.0]]),
        "layer.0.up.bias": torch.tensor([9.0, 0.1, 9.0, 0.3]),  # biases do not count
        "layer.0.down.weight": torch.tensor([[0.1, 3.0, 0.0, 0.0], [0.0, 4.0, 1.0, 1.0]]),
        "layer.0.down.bias": torch.tensor([1.0, 2.0]),
    }
    shapes = {
        "layer.0.up.weight": (2, 2),
        "layer.0.up.bias": (2,),
        "layer.0.down.weight": (2, 2),
        "layer.0.down.bias": (2,),
    }
    made = narrow_weights(weights, shapes)
    assert made["layer.0.up.weight"].tolist() == [[1.0, 0.0], [6.0, 8.0]]
    assert made["layer.0.up.bias"].tolist() == pytest.approx([0.1, 0.3])
    assert made["layer.0.down.weight"].tolist() == [[3.0, 0.0], [4.0, 1.0]]
    assert made["layer.0.down.bias"] is weights["layer.0.down.bias"]


def test_gate_and_value_of_a_neuron_go_together():
    # Three neurons, gates above values; the norms in are 5, 5 and 1, out 1, 2 and 3: the first one's product is 5.
    gates, values = [[3.0], [0.0], [1.0]], [[4.0], [5.0], [0.0]]
    weights = {
        "layers.1.mlp.Wi.weight": torch.tensor(gates + values),
        "layers.1.mlp.Wo.weight": torch.tensor([[1.0, 2.0, 3.0]]),
    }
    made = narrow_weights(weights, {"layers.1.mlp.Wi.weight": (2, 1), "layers.1.mlp.Wo.weight": (1, 1)})
    assert made["layers.1.mlp.Wi.weight"].tolist() == [[0.0], [5.0]]
    assert made["layers.1.mlp.Wo.weight"].tolist() == [[2.0]]


def test_of_equal_neurons_the_first_ones_stay():
    weights = {"mlp.0.up.weight": torch.ones(4, 1), "mlp.0.down.weight": torch.ones(1, 4)}
    weights["mlp.0.up.weight"][1] = -1.0
    made = narrow_weights(weights, {"mlp.0.up.weight": (2, 1), "mlp.0.down.weight": (1, 2)})
    assert made["mlp.0.up.weight"].tolist() == [[1.0], [-1.0]]


@pytest.mark.parametrize(
    "shapes",
    [
        {"layer.0.up.weight": (4, 2), "layer.0.down.weight": (2, 4)},  # no pruning
        {"layer.0.up.weight": (2, 2), "layer.0.down.weight": (2, 4)},  # in and not out
        {"layer.0.up.weight": (6, 2), "layer.0.down.weight": (2, 6)},  # wider
        {"layer.0.up.weight": (2, 2), "layer.0.down.weight": (2, 3)},  # two widths
        {"layer.0.up.weight": (0, 2), "layer.0.down.weight": (2, 0)},
        {"layer.0.up.weight": (2, 2), "layer.0.out.weight": (2, 2)},  # other names
    ],
)
def test_other_shape_differences_than_narrower_feed_forward_layers_are_refused(shapes):
    weights = {"layer.0.up.weight": torch.ones(4, 2), "layer.0.down.weight": torch.ones(2, 4)}
    with pytest.raises(CannotNarrowError, match=NO_WIDTH):
        narrow_weights(weights, shapes)


# --- Whole models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_removing_inactive_neurons_keeps_the_outputs(tiny_model, name):
    model = tiny_model(name)
    with torch.no_grad():  # the initial standard deviation of 0.02 hides the effect of a layer
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    before = logits_of(model, name)
    state = model.state_dict()
    blocks = places_of(model, narrow_model(model, 0.5))
    assert len(blocks) >= (1 if name == "albert" else 2)
    for places in blocks.values():
        width = min(state[weight].shape[dimension] for weight, dimension in places)
        gone = torch.arange(0, width, 2)  # every second neuron
        for weight, dimension in places:
            for part in range(state[weight].shape[dimension] // width):
                state[weight].index_fill_(dimension, gone + part * width, 0.0)
    full = logits_of(model, name)
    assert not torch.allclose(full, before, atol=1e-3)
    narrow = narrow_model(model, 0.5)
    assert torch.allclose(logits_of(narrow, name), full, atol=1e-4)
    assert narrow.num_parameters() < model.num_parameters()
    assert narrow.config.id2label == model.config.id2label
    assert type(narrow) is type(model)


@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_plain_transformers_loads_a_pruned_model(tiny_model, tmp_path, name):
    narrow = narrow_model(tiny_model(name), 0.5)
    narrow.save_pretrained(tmp_path)
    auto = AutoModelForSequenceClassification if name in TEXTS else AutoModelForImageClassification
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits_of(loaded, name), logits_of(narrow, name))


@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_the_layer_groups_stay_and_only_sizes_change(tiny_model, name):
    model = tiny_model(name)
    skeleton = build_skeleton(model.config, TASKS[f"{'text' if name in TEXTS else 'image'}-classification"])
    before, after = read_layout(skeleton), read_layout(narrow_model(skeleton, 0.5))
    assert (after.names(), after.groups) == (before.names(), before.groups)
    assert after.size == narrow_model(model, 0.5).num_parameters() < before.size
    assert [each.group for each in after.parameters] == [each.group for each in before.parameters]


@pytest.mark.parametrize("name", WITHOUT_WIDTH)
def test_a_model_without_such_a_width_is_refused(tiny_model, name):
    with pytest.raises(CannotNarrowError, match=NO_WIDTH):
        narrow_model(tiny_model(name), 0.3)


def test_widths_are_multiples_of_eight(tiny_model):
    assert narrow_config(tiny_model("bert", intermediate_size=64).config, 0.3).intermediate_size == 48
    assert narrow_config(tiny_model("gpt2").config, 0.3).n_inner == 48
    assert narrow_config(tiny_model("bert").config, 0.99).intermediate_size == 8


def test_too_little_to_take_is_refused(tiny_model):
    with pytest.raises(CannotNarrowError) as caught:
        narrow_config(tiny_model("bert").config, 0.05)
    assert str(caught.value) == (
        "prune must be greater: widths are rounded to multiples of 8, so all 32 neurons of a layer would be kept"
    )


def test_an_integral_ratio_stays_an_integer(tiny_model):
    config = tiny_model("dinov2", mlp_ratio=4).config
    assert narrow_config(config, 0.25).mlp_ratio == 3
    with pytest.raises(CannotNarrowError) as caught:
        narrow_config(config, 0.3)
    assert str(caught.value) == (
        "prune must be one of 0.25, 0.5, 0.75 for a model whose width is an integer multiple of the hidden size"
    )


def test_the_ratio_of_a_timm_model_is_its_own(tiny_model):
    model = tiny_model("timm/test_vit")
    block = model.timm_model.blocks[0].mlp.fc1
    assert block.out_features == 3 * block.in_features  # and not 4, as most have
    assert narrow_config(model.config, 0.5).model_args["mlp_ratio"] == 1.5
    again = narrow_config(narrow_config(model.config, 0.5), 0.5)
    assert again.model_args["mlp_ratio"] == 0.75


# --- Single weights ---------------------------------------------------------------------------------------------


def three_layers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1), nn.Linear(2, 2))
    for layer, values in zip(model, ([1, -6, 7, 0.5], [-2, 8, 3, -4], [0.1, 0.1, 0.1, 0.1]), strict=True):
        layer.weight.data = torch.tensor(values, dtype=torch.float32).view_as(layer.weight)
        layer.bias.data.fill_(0.01)
    return model


def test_the_smallest_weights_of_all_layers_together_become_zero():
    model = three_layers()
    zero_smallest(model, 0.5)
    assert model[0].weight.flatten().tolist() == [0.0, -6.0, 7.0, 0.0]
    assert model[1].weight.flatten().tolist() == [0.0, 8.0, 0.0, -4.0]
    assert model[2].weight.flatten().tolist() == pytest.approx([0.1] * 4)  # the head keeps its own
    assert all((layer.bias == 0.01).all() for layer in model)
    assert [mask.flatten().tolist() for _, mask in pruning_masks(model)] == [
        [True, False, False, True],
        [True, False, True, False],
    ]
    assert not any(torch.signbit(weight[mask]).any() for weight, mask in pruning_masks(model))


def test_zero_weights_count_as_pruned():
    model = three_layers()
    zero_smallest(model, 0.25)
    zero_smallest(model, 0.5)
    assert sum(int(mask.sum()) for _, mask in pruning_masks(model)) == 4


@pytest.mark.parametrize("name", ["bert", "gpt2", "albert", "resnet", "timm/test_efficientnet"])
def test_a_share_of_the_backbones_matrices_becomes_zero(tiny_model, name):
    model = tiny_model(name)
    names = [parameter for parameter, _ in model.named_parameters()]
    head = {parameter: value.clone() for parameter, value in model.named_parameters()}
    zero_smallest(model, 0.3)
    masked = pruning_masks(model)
    assert [parameter for parameter, _ in model.named_parameters()] == names
    zeros, whole = (sum(int(count(mask)) for _, mask in masked) for count in (torch.sum, torch.numel))
    assert zeros == round(0.3 * whole)
    looked_at = {id(weight) for weight, _ in masked}
    for parameter, value in model.named_parameters():
        assert id(value) in looked_at or torch.equal(value, head[parameter])
