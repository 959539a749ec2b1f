"""Outputs of heads, computed by hand."""

import math

import pytest
import torch

from hf_finetune.models.classifier_head import ClassificationHead, CosineLinear, Pooling


def test_a_hidden_layer_by_hand():
    head = ClassificationHead(2, 1, type="mlp", hidden=[2], activation="relu", dropout=0.5).eval()
    hidden, _, _, last = head.layers
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0, 2.0], [-3.0, 1.0]]))
        hidden.bias.copy_(torch.tensor([0.5, 0.0]))
        last.weight.copy_(torch.tensor([[10.0, 100.0]]))
        last.bias.fill_(1.0)
    # relu(1 + 4 + 0.5, -3 + 2) = (5.5, 0); 10 * 5.5 + 100 * 0 + 1
    assert head(torch.tensor([[1.0, 2.0]])).tolist() == [[56.0]]


@pytest.mark.parametrize(
    ("activation", "value"), [("relu", 0.0), ("tanh", math.tanh(-2.0)), ("silu", -2 / (1 + math.exp(2)))]
)
def test_activations(activation, value):
    head = ClassificationHead(1, 1, type="mlp", hidden=[1], activation=activation)
    with torch.no_grad():
        for weight, number in zip(head.parameters(), (1.0, 0.0, 1.0, 0.0), strict=True):
            weight.fill_(number)
    assert head(torch.tensor([[-2.0]])).item() == pytest.approx(value)


def test_only_hidden_layers_have_dropout():
    head = ClassificationHead(4, 2, type="mlp", hidden=[512], dropout=0.5).train()
    torch.manual_seed(0)
    found = {}
    head.layers[2].register_forward_hook(
        lambda module, args, output: found.update(share=(output == 0).float().mean())
    )
    head.layers[1] = torch.nn.Identity()
    head(torch.randn(8, 4))
    assert 0.45 < found["share"] < 0.55
    assert [type(layer).__name__ for layer in ClassificationHead(4, 2).layers] == ["HeadLinear"]


def test_several_hidden_layers_are_applied_in_sequence():
    head = ClassificationHead(4, 3, type="mlp", hidden=[7, 5])
    assert [tuple(weight.shape) for name, weight in head.named_parameters() if "weight" in name] == [
        (7, 4),
        (5, 7),
        (3, 5),
    ]


def test_a_cosine_by_hand():
    layer = CosineLinear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, -1.0]]))
    expected = [
        6.0,
        8.0,
        10 * (-0.6 - 0.8) / math.sqrt(2),
    ]  # of (3, 4), whose length is 5, times the scale of 10
    assert layer(torch.tensor([[3.0, 4.0]]))[0].tolist() == pytest.approx(expected)
    assert layer(torch.tensor([[0.03, 0.04]]))[0].tolist() == pytest.approx(expected)


TOKENS = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]], [[2.0, 20.0], [4.0, 40.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def test_the_first_token_that_is_no_padding():
    pool = Pooling("cls", 2)
    assert pool(TOKENS).tolist() == [[1.0, 10.0], [2.0, 20.0]]
    assert pool(TOKENS, torch.tensor([[0, 1, 1], [1, 1, 0]])).tolist() == [[3.0, 30.0], [2.0, 20.0]]


@pytest.mark.parametrize("kind", ["mean", "attention"])
def test_the_mean_leaves_padding_out_and_attention_begins_as_the_mean(kind):
    pool = Pooling(kind, 2)
    assert torch.allclose(pool(TOKENS, MASK), torch.tensor([[3.0, 30.0], [3.0, 30.0]]))
    assert pool(TOKENS)[0].tolist() == pytest.approx([3.0, 30.0])


def test_weights_of_attention_by_hand():
    pool = Pooling("attention", 2)
    with torch.no_grad():
        pool.query.copy_(torch.tensor([[math.log(2) / 2, 0.0]]))
    # the scores of 2 and 4 are log 2 and 2 log 2: weights 1/3 and 2/3
    assert pool(TOKENS, MASK)[1].tolist() == pytest.approx([10 / 3, 100 / 3])


def test_leading_tokens_are_in_no_mean():
    assert Pooling("mean", 2, num_prefix_tokens=1)(TOKENS)[0].tolist() == pytest.approx([4.0, 40.0])


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_places_of_a_map(channels_last):
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[10.0, 20.0], [30.0, 60.0]]]])  # [1, 2 features, 2, 2]
    given = maps.permute(0, 2, 3, 1) if channels_last else maps
    pool = Pooling("mean", 2, channels_last=channels_last)
    assert pool(given).tolist() == [pytest.approx([3.0, 30.0])]
