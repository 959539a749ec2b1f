"""Adapters on tiny models: placement, plan, and merging without a trace."""

# ruff: noqa: E501 (error texts are tested whole)

import warnings

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_finetune.doctor.checkpoint import realign_weights
from hf_finetune.errors import InputError
from hf_finetune.models.adapters import (
    adapted_layers,
    adapter_kind,
    adapter_names,
    add_adapter,
    merge_adapter,
    names_without_adapter,
    uncalled_layers,
)
from hf_finetune.models.export import export_adapter
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.planning.selectors import select
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.training.freezing import freeze_all_but

pytestmark = pytest.mark.slow

KINDS = ["lora", "dora", "ia3"]
TEXTS = ["bert", "roberta", "electra", "albert", "deberta-v2", "distilbert", "modernbert", "gpt2"]
IMAGES = ["vit", "deit", "dinov2", "swin", "resnet", "convnext"]
TIMM = ["resnet", "vit", "convnext", "efficientnet"]
SMALL = [*TEXTS, *IMAGES, *(f"timm/test_{name}" for name in TIMM)]
LARGE = ["timm/resnet18", "timm/vgg11_bn", "timm/inception_v3", "timm/swin_tiny_patch4_window7_224"]


def adapted(tiny_model, name, kind="lora", seed=0, **options):
    """Return a model twice, without and with an adapter that changes its output."""
    plain, model = tiny_model(name), tiny_model(name)
    rank = {} if kind == "ia3" else {"r": 2}
    add_adapter(model, head_names(model), AdapterSpec(type=kind, **rank, **options), seed)
    return plain, model


def shaken(model):
    """Change the weights of the adapter and the head, as training would."""
    torch.manual_seed(1)
    changed = {*adapter_names(model), *head_names(model)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in changed:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def batch_of(name):
    if name in TEXTS:
        return {"input_ids": torch.randint(4, 15, (3, 7), generator=torch.Generator().manual_seed(2))}
    return {"pixel_values": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))}


def logits_of(model, name):
    with torch.no_grad():
        return model.eval()(**batch_of(name)).logits


def assert_alike(logits, expected):
    """Compare within the rounding of merging in fp32: two hundred-thousandths of the largest logit."""
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


# --- Placement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "endings"),
    [
        ("bert", "lora", {"query", "value"}),
        ("bert", "ia3", {"key", "value", "dense"}),
        ("deberta-v2", "dora", {"query_proj", "value_proj"}),
        ("gpt2", "lora", {"c_attn"}),
        ("distilbert", "lora", {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}),
        ("timm/test_vit", "lora", {"qkv", "proj", "fc1", "fc2"}),
        ("timm/test_convnext", "lora", {"fc1", "fc2"}),
        ("resnet", "lora", {"convolution"}),
    ],
)
def test_auto_selects_the_layers_of_peft_or_those_with_most_weights(tiny_model, name, kind, endings):
    _, model = adapted(tiny_model, name, kind)
    layers = adapted_layers(model)
    assert {layer.rpartition(".")[2] for layer in layers} == endings
    assert adapter_kind(model) == kind
    kinds = {type(layer.get_base_layer()) for layer in layers.values()}
    assert kinds == ({nn.Conv2d} if name == "resnet" else kinds - {nn.Conv2d})


def test_the_head_gets_no_adapter_and_grouped_convolutions_are_left_out(tiny_model):
    model = tiny_model("timm/test_efficientnet")
    note = add_adapter(model, head_names(model), AdapterSpec(type="lora", r=2))
    layers = adapted_layers(model)
    bases = [layer.get_base_layer() for layer in layers.values()]
    grouped = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert bases and grouped and all(getattr(base, "groups", 1) == 1 for base in bases)
    assert "timm_model.classifier" not in layers
    assert note.startswith(f"An adapter, lora of rank 2, is in {len(layers)} layers: conv_stem, ")
    assert note.endswith(f". {len(grouped)} grouped or dilated convolutions have none.")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["query"], ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.attention.self.query"]),
        (["/layer.1.*(key|query)$/"], [f"bert.encoder.layer.1.attention.self.{name}" for name in ("query", "key")]),
        (["intermediate.dense", "pooler.dense"], [f"bert.encoder.layer.{n}.intermediate.dense" for n in (0, 1)] + ["bert.pooler.dense"]),
        (["all-linear"], None),
    ],
)  # fmt: skip
def test_targets_are_endings_of_names_or_regular_expressions(tiny_model, target, expected):
    plain, model = adapted(tiny_model, "bert", target=target)
    linear = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear)]
    assert list(adapted_layers(model)) == (expected or [name for name in linear if name != "classifier"])


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        (
            "bert",
            ["qury", "/layer[/", "LayerNorm"],
            "model.adapter.target must match at least one linear or plain convolutional layer of the backbone. "
            "Got 'qury'. Nearest: 'query'.\n"
            "model.adapter.target must be a valid regular expression (unterminated character set at position 5). "
            "Got '/layer[/'.\n"
            "model.adapter.target must match at least one linear or plain convolutional layer of the backbone. "
            "Got 'LayerNorm'. Known: 'auto', 'all-linear', 'query', 'key', 'value', 'dense'.",
        ),
        (
            "bert",
            ["classifier"],
            "model.adapter.target must match at least one linear or plain convolutional layer of the backbone. "
            "Got 'classifier'. Known: 'auto', 'all-linear', 'query', 'key', 'value', 'dense'.",
        ),
        (
            "resnet",
            ["all-linear"],
            "model.adapter.target must match at least one linear or plain convolutional layer of the backbone. "
            "Got 'all-linear'. Its layers end in convolution.",
        ),
    ],
)
def test_a_target_that_matches_nothing_is_an_error(tiny_model, name, target, message):
    with pytest.raises(InputError) as caught:
        adapted(tiny_model, name, target=target)
    assert str(caught.value) == message


def test_the_same_seed_gives_the_same_adapter(tiny_model):
    (_, one), (_, same), (_, other) = (adapted(tiny_model, "bert", seed=seed) for seed in (3, 3, 4))
    name = "bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    weights = [model.state_dict()[name] for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_layer_whose_weight_bypasses_its_adapter_is_detected(tiny_model):
    """timm 1.0's EVA computes with ``self.qkv.weight`` and never calls ``self.qkv``."""
    _, model = adapted(tiny_model, "timm/eva02_tiny_patch14_224", target=["qkv", "attn.proj"])
    with uncalled_layers(model) as uncalled, torch.no_grad():
        assert len(uncalled) == 24
        model(pixel_values=torch.zeros(1, 3, 224, 224))
    assert sorted(uncalled) == sorted(f"timm_model.blocks.{index}.attn.qkv" for index in range(12))
    assert not any(layer._forward_hooks for layer in adapted_layers(model).values())


# --- Plan --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_an_adapter_changes_no_layer_group(tiny_model, name, kind):
    with torch.device("meta"):
        plain, model = adapted(tiny_model, name, kind)
    before, after = read_layout(plain), read_layout(model)
    assert (after.groups, after.batch_norms, after.source) == (
        before.groups,
        before.batch_norms,
        before.source,
    )
    assert (before.adapter, after.adapter) == ("", kind)
    own = [parameter for parameter in after.parameters if not parameter.is_adapter]
    for one, other in zip(before.parameters, own, strict=True):
        assert (other.bare_name, other.size, other.group, other.is_norm, other.is_bias, other.decays) == (
            *(one.name, one.size, one.group, one.is_norm, one.is_bias, one.decays),
        )
    by_name = {parameter.name: parameter for parameter in before.parameters}
    bare, adapter = (
        names_without_adapter(model),
        [parameter for parameter in after.parameters if parameter.is_adapter],
    )
    assert {parameter.name for parameter in adapter} == adapter_names(model)
    assert all(parameter.group == by_name[bare[parameter.name]].group for parameter in adapter)
    assert after.size == model.num_parameters() == before.size + sum(parameter.size for parameter in adapter)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_exempts_factors_with_identity_one(tiny_model, kind):
    _, model = adapted(tiny_model, "resnet", kind)
    decays = {parameter.name for parameter in read_layout(model).parameters if parameter.decays}
    own = {name.split(".")[-3 if kind != "ia3" else -2]: name in decays for name in adapter_names(model)}
    factors = {"lora": {}, "dora": {"lora_magnitude_vector": False}, "ia3": {"ia3_l": False}}[kind]
    assert own == ({} if kind == "ia3" else {"lora_A": True, "lora_B": True}) | factors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "vit", "timm/test_vit", "timm/test_resnet", "convnext"])
def test_selectors_have_the_same_meaning_as_without_an_adapter(tiny_model, name, kind):
    plain, model = adapted(tiny_model, name, kind)
    before, after = read_layout(plain), read_layout(model)
    bare, adapter = names_without_adapter(model), adapter_names(model)
    for selector in ("head", "last:1", "layers[0]", "norms", "biases", "/bias$/", ["head", "norms"]):
        chosen = select(after, selector)
        assert adapter.isdisjoint(chosen)
        assert [bare[name] for name in chosen] == list(select(before, selector))
    assert select(after, "all") == after.names()
    assert set(select(after, kind)) == set(select(after, "adapter")) == adapter | set(head_names(model))
    assert set(select(after, [kind, "norms"])) == adapter | set(select(after, ["head", "norms"]))


def test_a_regular_expression_finds_the_names_that_the_checkpoint_has(tiny_model):
    layout = read_layout(adapted(tiny_model, "bert")[1])
    query = "bert.encoder.layer.0.attention.self.query"
    assert select(layout, "/layer.0.*query.weight$/") == (f"{query}.base_layer.weight",)
    assert select(layout, "/layer.0.*query.*lora_A/") == (f"{query}.lora_A.default.weight",)


@pytest.mark.parametrize(
    ("kind", "selector", "message"),
    [
        ("", "lora", "train must be the adapter of the model. Got 'lora'. Add it with model.adapter=lora."),
        ("", "ia3", "train must be the adapter of the model. Got 'ia3'. Add it with model.adapter=ia3."),
        ("", "adapter", "train must be the adapter of the model. Got 'adapter'. Add it with model.adapter=lora."),
        ("dora", "lora", "train must be the adapter of the model. Got 'lora'. The model has 'dora'."),
        ("lora", "loar", "train must be a valid selector. Got 'loar'. Nearest: 'lora'. Valid: head, all, norms, biases, lora, last:N, layers[A:B], /regular expression/."),
        ("lora", "/qq9qq/", "train must match at least one parameter. Got '/qq9qq/'. The names of this model's 49 parameter tensors range from 'bert.embeddings.word_embeddings.weight' to 'classifier.bias'."),
    ],
)  # fmt: skip
def test_an_adapter_that_the_model_lacks_is_an_error(tiny_model, kind, selector, message):
    model = adapted(tiny_model, "bert", kind)[1] if kind else tiny_model("bert")
    with pytest.raises(InputError) as caught:
        select(read_layout(model), selector)
    assert str(caught.value) == message


# --- Freezing ---------------------------------------------------------------------------------------------------


def test_no_wrapper_holds_a_second_copy_of_the_head(tiny_model):
    """Trap 33: unfreezing a head in peft's ``modules_to_save`` completely would also train the unused original."""
    plain, model = adapted(tiny_model, "bert")
    assert type(model) is type(plain)
    assert head_names(model) == head_names(plain)
    freeze_all_but(model, select(read_layout(model), "all"))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == len(list(plain.named_parameters())) + len(adapter_names(model))
    assert not [name for name in trained if "original_module" in name or "modules_to_save" in name]


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("selector", ["head", "lora", "last:1", "all"])
def test_the_dropout_of_an_adapter_acts_just_when_the_adapter_is_trained(tiny_model, kind, selector):
    """peft 0.21 registers it before the adapter's weights: in the first layer it would belong to the frozen prefix."""
    _, model = adapted(tiny_model, "bert", kind, dropout=0.5)
    freeze_all_but(model, select(read_layout(model), kind if selector == "lora" else selector))
    model.train()
    dropouts = [layer.lora_dropout["default"] for layer in adapted_layers(model).values()]
    assert len(dropouts) == 4 and all(isinstance(dropout, nn.Dropout) for dropout in dropouts)
    assert {dropout.training for dropout in dropouts} == {selector in ("lora", "all")}
    model.eval()
    assert not any(module.training for module in model.modules())


# --- Merged and saved -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_an_adapter_changes_nothing_at_first_and_merges_without_a_trace(tiny_model, name, kind):
    plain, model = adapted(tiny_model, name, kind)
    torch.testing.assert_close(logits_of(model, name), logits_of(plain, name), rtol=0, atol=1e-6)
    shaken(model)
    layers, expected = set(adapted_layers(model)), logits_of(model, name)
    assert not torch.allclose(expected, logits_of(plain, name), atol=1e-3)
    assert merge_adapter(model, batch_of(name)) < 2e-5
    assert_alike(logits_of(model, name), expected)
    merged, before = model.state_dict(), plain.state_dict()
    assert list(merged) == list(before)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert not hasattr(model, "peft_config")
    head = set(head_names(plain))
    moved = {name for name in merged if not torch.equal(merged[name], before[name])} - head
    assert {name.rpartition(".")[0] for name in moved} == layers


def test_a_merge_that_changes_the_output_is_an_error(tiny_model, monkeypatch):
    model = shaken(adapted(tiny_model, "bert")[1])
    layer = next(iter(adapted_layers(model).values()))
    monkeypatch.setattr(layer, "merge", lambda **_: None)
    with pytest.raises(RuntimeError) as caught:
        merge_adapter(model, batch_of("bert"))
    assert str(caught.value).startswith("The adapter cannot be merged: a logit changes by ")


def load_adapter(model, folder):
    """Load as plain peft does: peft 0.21 asks transformers 5.23 for a property that is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(model, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["bert", "roberta", "modernbert", "gpt2", "vit", "resnet", *(f"timm/test_{one}" for one in TIMM)]
)
def test_plain_peft_loads_the_adapter_on_the_checkpoint(tmp_path, tiny_model, name, kind):
    plain, model = adapted(tiny_model, name, kind)
    plain.save_pretrained(tmp_path / "base")
    shaken(model)
    head = head_names(model)
    export_adapter(model, head, tmp_path / "adapter", base=str(tmp_path / "base"))
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    auto = AutoModelForSequenceClassification if name in TEXTS else AutoModelForImageClassification
    base = realign_weights(auto.from_pretrained(tmp_path / "base"))
    loaded = load_adapter(base, tmp_path / "adapter")
    torch.testing.assert_close(logits_of(loaded, name), logits_of(model, name), rtol=0, atol=1e-6)
    assert loaded.active_peft_config.base_model_name_or_path == str(tmp_path / "base")
    merged = loaded.merge_and_unload()
    assert_alike(logits_of(merged, name), logits_of(model, name))
