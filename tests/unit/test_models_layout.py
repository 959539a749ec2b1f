"""Layer groups, norms and weight decay, read from the structure of every architecture."""

import pytest
import torch
from torch import nn

from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.planning.stages import build_plan
from hf_finetune.recipe.stage_fields import StageSpec

CLASSIFIER = ["classifier.weight", "classifier.bias"]
DENSE = ["classifier.dense.weight", "classifier.dense.bias"]
OUT = ["classifier.out_proj.weight", "classifier.out_proj.bias"]

# For each architecture: the layer groups below the head, and the head.
MATRIX = {
    "bert": (["input", "bert.encoder.layer.0", "bert.encoder.layer.1"], CLASSIFIER),
    "roberta": (["input", "roberta.encoder.layer.0", "roberta.encoder.layer.1"], DENSE + OUT),
    "electra": (["input", "electra.encoder.layer.0", "electra.encoder.layer.1"], DENSE + OUT),
    "albert": (["input", "albert.encoder.albert_layer_groups.0.albert_layers.0"], CLASSIFIER),
    "deberta-v2": (
        ["input", "deberta.encoder.layer.0", "deberta.encoder.layer.1"],
        ["pooler.dense.weight", "pooler.dense.bias", *CLASSIFIER],
    ),
    "distilbert": (
        ["input", "distilbert.transformer.layer.0", "distilbert.transformer.layer.1"],
        ["pre_classifier.weight", "pre_classifier.bias", *CLASSIFIER],
    ),
    "modernbert": (
        ["input", "model.layers.0", "model.layers.1"],
        ["head.dense.weight", "head.norm.weight", *CLASSIFIER],
    ),
    "gpt2": (["input", "transformer.h.0", "transformer.h.1"], ["score.weight"]),
    "vit": (["input", "vit.layers.0", "vit.layers.1"], CLASSIFIER),
    "deit": (["input", "deit.layers.0", "deit.layers.1"], CLASSIFIER),
    "dinov2": (["input", "dinov2.encoder.layer.0", "dinov2.encoder.layer.1"], CLASSIFIER),
    "swin": (
        ["input"] + [f"swin.encoder.layers.{name}" for name in ("0.blocks.0", "1.blocks.0", "1.blocks.1")],
        CLASSIFIER,
    ),
    "resnet": (
        ["input"] + [f"resnet.encoder.stages.{name}" for name in ("0.layers.0", "1.layers.0", "1.layers.1")],
        ["classifier.1.weight", "classifier.1.bias"],
    ),
    "convnext": (
        ["input"]
        + [f"convnext.encoder.stages.{name}" for name in ("0.layers.0", "1.layers.0", "1.layers.1")],
        CLASSIFIER,
    ),
    "timm/resnet18": (
        ["conv1"] + [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)],
        ["timm_model.fc.weight", "timm_model.fc.bias"],
    ),
    "timm/test_vit": (
        ["input", *(f"blocks.{block}" for block in range(6))],
        ["timm_model.head.weight", "timm_model.head.bias"],
    ),
    "timm/test_efficientnet": (
        ["conv_stem", *(f"blocks.{stage}.0" for stage in range(5))],
        ["timm_model.classifier.weight", "timm_model.classifier.bias"],
    ),
    "timm/inception_v3": (
        ["Conv2d_1a_3x3", "Conv2d_3b_1x1"]
        + ["Mixed_5b", "Mixed_5c", "Mixed_5d"]
        + [f"Mixed_6{letter}" for letter in "abcde"]
        + ["Mixed_7a", "Mixed_7b", "Mixed_7c"],
        ["timm_model.fc.weight", "timm_model.fc.bias"],
    ),
    "timm/vgg11_bn": (
        [f"features.{i}" for i in (0, 1, 4, 5, 8, 9, 11, 12)] + ["pre_logits"],
        ["timm_model.head.fc.weight", "timm_model.head.fc.bias"],
    ),
    "timm/test_convnext": (None, ["timm_model.head.fc.weight", "timm_model.head.fc.bias"]),
    "timm/swin_tiny_patch4_window7_224": (
        None,
        ["timm_model.head.fc.weight", "timm_model.head.fc.bias"],
    ),
}
ALL = sorted(MATRIX)


@pytest.fixture(scope="module")
def on_meta(tiny_model):
    """Build each architecture once, without memory for its weights."""
    built = {}

    def build(name):
        if name not in built:
            with torch.device("meta"):
                built[name] = tiny_model(name)
        return built[name]

    return build


@pytest.mark.parametrize("name", [name for name in ALL if MATRIX[name][0]])
def test_the_layer_groups_have_stable_names(on_meta, name):
    groups = read_layout(on_meta(name)).groups
    assert list(groups) == [*MATRIX[name][0], "head"]


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_in_one_group_and_the_head_is_the_last(on_meta, name):
    model = on_meta(name)
    layout = read_layout(model)
    assert layout.names() == tuple(name for name, _ in model.named_parameters())
    assert layout.size == model.num_parameters()
    assert sorted({parameter.group for parameter in layout.parameters}) == list(range(len(layout.groups)))
    assert len(set(layout.groups)) == len(layout.groups)
    depths = [parameter.group for parameter in layout.parameters]
    assert depths == sorted(depths)
    assert head_names(model) == list(select(layout, "head")) == MATRIX[name][1]


@pytest.mark.parametrize("name", ALL)
def test_weight_decay_exempts_norms_biases_and_tokens(on_meta, name):
    """Trap 19: transformers 5.23 exempts only LayerNorms and names, and ignores timm's no_weight_decay()."""
    model = on_meta(name)
    parameters = dict(model.named_parameters())
    layout = read_layout(model)
    decays = {parameter.name for parameter in layout.parameters if parameter.decays}
    spared = [name for name in parameters if name not in decays]
    assert {name for name in parameters if parameters[name].ndim == 1} <= set(spared)
    tokens = (
        "cls_token",
        "pos_embed",
        "position_embeddings",
        "distillation_token",
        "mask_token",
        "bias_table",
    )
    assert {name for name in parameters if name.endswith(tokens)} <= set(spared)
    if name.startswith("timm/") and hasattr(model.timm_model, "no_weight_decay"):
        assert {f"timm_model.{name}" for name in model.timm_model.no_weight_decay()} & set(parameters) <= set(
            spared
        )
    matrices = [name for name in parameters if name.endswith(".weight") and parameters[name].ndim > 1]
    assert decays == set(matrices)
    groups = plan_groups(layout, layout.names(), lr=0.1, weight_decay=0.05)
    assert [(group.weight_decay, set(group.parameters)) for group in groups] == [
        (0.05, decays),
        (0.0, set(spared)),
    ]


NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@pytest.mark.parametrize("name", ALL)
def test_every_norm_is_known_as_one(on_meta, name):
    """timm 1.0.31's BatchNormAct2d is a BatchNorm2d with its activation as a child."""
    model = on_meta(name)
    expected = {
        f"{prefix}.{own}"
        for prefix, module in model.named_modules()
        if isinstance(module, NORMS)
        for own, _ in module.named_parameters(recurse=False)
    }
    assert expected
    assert set(select(read_layout(model), "norms")) == expected


@pytest.mark.parametrize("name", ["resnet", "timm/resnet18", "timm/test_efficientnet", "timm/vgg11_bn"])
def test_batch_norm_statistics_change_in_the_stages_that_train_them(on_meta, name):
    model = on_meta(name)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    layout = read_layout(model)
    assert [name for name, _ in layout.batch_norms] == names
    stages = [StageSpec(train=train, epochs=1.0, lr=0.1) for train in ("head", "last:1", "norms", "all")]
    head, last, norms, everything = build_plan(layout, stages).stages
    assert list(head.frozen_batch_norms) == names
    assert norms.frozen_batch_norms == everything.frozen_batch_norms == ()
    below = [name for name, group in layout.batch_norms if group < layout.head_group - 1]
    assert list(last.frozen_batch_norms) == below


def test_the_source_of_the_groups_is_reported(on_meta):
    assert read_layout(on_meta("bert")).source == "the layers of bert.encoder.layer"
    assert read_layout(on_meta("timm/test_vit")).source == "timm's group_matcher"


def test_a_backbone_without_a_list_of_layers_is_grouped_by_its_children(tiny_model):
    model = tiny_model("bert")
    model.bert.encoder = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    layout = read_layout(model)
    assert layout.groups == ("bert.embeddings", "bert.encoder", "bert.pooler", "head")
    assert layout.source == "the backbone's modules in order (no list of layers found)"
    assert layout.note == (
        "BertForSequenceClassification is not a known architecture: its layer groups are its modules in order."
    )
