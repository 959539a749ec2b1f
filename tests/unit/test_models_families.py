"""Layer groups of every timm family and of every classifier of transformers, on the meta device."""

from collections import Counter

import pytest
import timm
import torch
from timm.models._registry import _model_to_module
from torch import nn
from transformers import TimmWrapperConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from hf_finetune.errors import InputError
from hf_finetune.models.build import build_skeleton
from hf_finetune.models.find_head import find_head
from hf_finetune.models.layout import read_layout
from hf_finetune.tasks import TASKS

LABELS = 1019  # a size that no layer has for another reason
FAMILIES = {module: name for name in reversed(timm.list_models()) for module in [_model_to_module[name]]}
KINDS = {
    **dict.fromkeys(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "image-classification"),
    **dict.fromkeys(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "text-classification"),
}
# Without a usable default config, with an additional package, or (shieldgemma2) without a head.
WITHOUT_DEFAULT = {
    "cohere_compass_text",
    "dinat",
    "esm",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "layoutlmv2",
    "ministral",
    "nemotron",
    "shieldgemma2",
    "timm_wrapper",
}
TRANSFORMERS = sorted(KINDS.keys() - WITHOUT_DEFAULT)


def timm_skeleton(name, labels=LABELS):
    known = timm.get_pretrained_cfg(name)
    fields = known.to_dict() if known else {}
    config = TimmWrapperConfig(architecture=name, pretrained_cfg=fields, num_labels=labels)
    return build_skeleton(config, TASKS["image-classification"])


def transformers_skeleton(kind):
    return build_skeleton(CONFIG_MAPPING[kind](num_labels=LABELS), TASKS[KINDS[kind]])


def check(model):
    """Check the properties of every layout, and return it."""
    layout = read_layout(model)
    assert layout.names() == tuple(name for name, _ in model.named_parameters())
    assert sorted({parameter.group for parameter in layout.parameters}) == list(range(len(layout.groups)))
    assert len(set(layout.groups)) == len(layout.groups)
    assert layout.groups[-1] == "head" and not any("timm_model" in title for title in layout.groups)
    of_labels = {name for name, parameter in model.named_parameters() if LABELS in parameter.shape}
    head = {parameter.name for parameter in layout.parameters if parameter.group == layout.head_group}
    assert of_labels <= head
    assert layout == read_layout(model)
    return layout


def test_the_families_are_all_here():
    assert len(FAMILIES) > 90
    assert len(TRANSFORMERS) > 140


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES.values()))
def test_every_family_of_timm_has_layer_groups_and_a_head(name):
    layout = check(timm_skeleton(name))
    assert layout.backbone_group_count >= 3
    sizes = Counter()
    for parameter in layout.parameters:
        sizes[layout.groups[parameter.group]] += parameter.size
    assert max(sizes.values()) < 0.95 * layout.size
    assert "head" not in layout.note


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_every_classifier_of_transformers_has_layer_groups_and_a_head(kind):
    layout = check(transformers_skeleton(kind))
    assert layout.backbone_group_count >= (1 if kind in ("albert", "perceiver") else 3)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("clip", "classifier"),
        ("siglip", "classifier"),
        ("hgnet_v2", "fc"),
        ("pp_lcnet", "head"),
        ("perceiver", "perceiver.decoder.decoder.final_layer"),
    ],
)
def test_an_undeclared_head_is_the_last_layer_with_as_many_outputs(kind, head):
    model = transformers_skeleton(kind)
    assert find_head(model) == ([f"{head}.weight", f"{head}.bias"], False)
    assert read_layout(model).note == (
        f"{type(model).__name__} is not a known architecture: its head is assumed to be {head}."
    )


@pytest.mark.parametrize(
    ("kind", "lists"), [("t5", ("encoder", "decoder")), ("bart", ("encoder", "decoder"))]
)
def test_the_layers_of_an_encoder_come_before_those_of_its_decoder(kind, lists):
    layout = read_layout(transformers_skeleton(kind))
    order = [next(part for part in lists if f"{part}." in title) for title in layout.groups[1:-1]]
    assert order == sorted(order, key=lists.index)
    assert set(order) == set(lists)


def test_lists_of_the_parts_of_layers_are_read_by_turns():
    groups = read_layout(transformers_skeleton("xlm")).groups
    parts = ("attentions", "layer_norm1", "ffns", "layer_norm2")
    assert groups[1:5] == tuple(f"transformer.{part}.0" for part in parts)
    assert groups[-5:] == (*(f"transformer.{part}.11" for part in parts), "head")


def test_a_timm_model_without_a_group_matcher_is_grouped_by_its_blocks_with_a_warning():
    layout = read_layout(timm_skeleton("poolformer_s12"))
    assert layout.groups[:3] == ("stem", "stages.0.blocks.0", "stages.0.blocks.1")
    assert layout.groups[-2:] == ("head.norm", "head")
    assert layout.note == "MetaFormer is not a known architecture: its layer groups are its modules in order."


def test_a_checkpoint_of_several_classifiers_declares_its_class():
    """DeiT has one with a teacher's head; the first one is used if the checkpoint declares neither."""
    config = CONFIG_MAPPING["deit"](num_labels=LABELS)
    assert (
        type(build_skeleton(config, TASKS["image-classification"])).__name__ == "DeiTForImageClassification"
    )
    config.architectures = ["DeiTForImageClassificationWithTeacher"]
    model = build_skeleton(config, TASKS["image-classification"])
    assert type(model).__name__ == "DeiTForImageClassificationWithTeacher"
    assert {name.split(".")[0] for name in find_head(model)[0]} == {
        "cls_classifier",
        "distillation_classifier",
    }


def test_layers_before_the_classifier_in_a_timm_head_are_their_own_layer_group():
    layout = read_layout(timm_skeleton("inception_next_atto"))
    assert layout.groups[-2:] == ("head.fc1", "head")


def test_an_architecture_that_gives_features_only_is_an_error():
    with pytest.raises(InputError) as caught:
        timm_skeleton("gemma4_vit_570m_enc")
    assert str(caught.value) == (
        "model.path must be an image classifier. Got timm's 'gemma4_vit_570m_enc', which returns only features. "
        "Choose another architecture."
    )


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)


class Unknown(nn.Module):
    """A model without a list of layers or a base model."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.stage1, self.stage2 = nn.Sequential(Block(), Block()), nn.Sequential(Block())
        self.fc = nn.Linear(4, 5)


def test_an_unknown_architecture_is_grouped_in_module_order_with_a_warning():
    with torch.device("meta"):
        layout = read_layout(Unknown())
    assert layout.groups == ("stem", "stage1.0", "stage1.1", "stage2.0", "head")
    assert layout.note == (
        "Unknown is not a known architecture: its layer groups are its modules in order, and its head is assumed to be "
        "fc."
    )
    assert layout.batch_norms == (("stage1.0.norm", 1), ("stage1.1.norm", 2), ("stage2.0.norm", 3))
