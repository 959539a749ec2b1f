"""The table of default rates by architecture, and its page."""

import re
from pathlib import Path

import pytest
import timm
from transformers import AutoConfig, TimmWrapperConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from hf_finetune.models.defaults import FALLBACKS, TABLE, find_defaults
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.rates import PARAMETER_EFFICIENT_RATES
from hf_finetune.planning.selectors import LAST
from hf_finetune.tasks import MODALITIES

PAGE = Path(__file__).parents[2] / "docs" / "rates.md"
ROWS = (*TABLE, *FALLBACKS.values())
PARTS = tuple(PARAMETER_EFFICIENT_RATES.values())
KIND = re.compile(r"measured here|stated|scaled|convention")
CITATION = re.compile(r"(?:et al\.|& \w+) (?:19|20)\d\d|[\w-]+/[\w.-]+, [\w./-]+")


def family(config, modality, batch_norms=()):
    return find_defaults(config, Layout((), ("head",), batch_norms), MODALITIES[modality]).family


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.family)
def test_every_row_is_complete_and_has_a_source(row):
    assert 1e-5 <= row.lr <= row.head_lr <= 1e-2
    assert 0.5 <= row.layer_decay <= 1
    assert row.pooling in ("own", "mean", "cls")
    assert row.train == "all" or LAST.fullmatch(row.train)


SOURCES = [
    *(source for row in ROWS for source in (row.lr_source, row.decay_source)),
    *(part.source for part in PARTS),
]


@pytest.mark.parametrize("source", dict.fromkeys(SOURCES), ids=lambda text: text[:40])
def test_a_source_declares_whether_the_value_was_measured_stated_scaled_or_chosen(source):
    kind = KIND.match(source)
    assert kind is not None
    if kind[0] in ("stated", "scaled") and "same place" not in source:
        assert CITATION.search(source)


def test_every_row_of_the_table_can_be_reached_and_no_fallback_is_named_by_a_checkpoint():
    assert all(row.model_types or row.timm for row in TABLE)
    assert not any(row.model_types or row.timm for row in FALLBACKS.values())
    # Checkpoints of ViT-MAE are read as ViT: they have no class with a classifier.
    classifiers = {
        *MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        *MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "vit_mae",
    }
    assert {name for row in TABLE for name in row.model_types} <= classifiers
    names = timm.list_models()
    first = {
        next((row.family for row in TABLE if row.timm and re.match(row.timm, name)), "") for name in names
    }
    assert {row.family for row in TABLE if row.timm} <= first


@pytest.mark.parametrize(
    ("model_type", "width", "wanted"),
    [
        ("bert", 32, "small BERTs"),
        ("bert", 384, "MiniLM"),
        ("bert", 512, "small BERTs"),
        ("bert", 768, "BERT"),
        ("distilbert", None, "DistilBERT"),
        ("xlm-roberta", 768, "RoBERTa"),
        ("electra", 256, "small ELECTRA and ConvBERT"),
        ("convbert", 384, "small ELECTRA and ConvBERT"),
        ("electra", 768, "ELECTRA and ConvBERT"),
        ("convbert", 768, "ELECTRA and ConvBERT"),
        ("electra", 1024, "ELECTRA-large"),
        ("deberta-v2", 768, "DeBERTa"),
        ("deberta-v2", 1024, "DeBERTa-large"),
        ("gpt2", None, "unlisted text and speech models"),
    ],
)
def test_a_text_model_is_found_by_its_type_and_size(model_type, width, wanted):
    config = AutoConfig.for_model(model_type, **({"hidden_size": width} if width else {}))
    assert family(config, "text") == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("efficientnet_lite0", "EfficientNet and MobileNet"),
        ("tf_efficientnet_b0", "EfficientNet and MobileNet"),
        ("mobilenetv3_large_100", "EfficientNet and MobileNet"),
        ("vit_base_patch16_224", "ViT and DeiT"),
        ("deit3_small_patch16_224", "ViT and DeiT"),
        ("vit_small_patch14_dinov2", "DINOv2 and DINOv3"),
        ("beit_base_patch16_224", "BEiT"),
        ("eva02_base_patch14_224", "EVA"),
        ("swinv2_tiny_window8_256", "Swin"),
        ("convnext_tiny", "ConvNeXt"),
        ("resnet50", "ResNet and RegNet"),
        ("resnext50_32x4d", "ResNet and RegNet"),
        ("resnetv2_50", "ResNet and RegNet"),
        ("wide_resnet50_2", "ResNet and RegNet"),
        ("regnety_032", "ResNet and RegNet"),
        ("vgg16", "unlisted image models without BatchNorm"),
    ],
)
def test_a_model_of_timm_is_found_by_its_name(name, wanted):
    assert timm.is_model(name)
    assert family(TimmWrapperConfig(architecture=name, num_labels=2), "image") == wanted


def test_an_image_model_of_transformers_is_found_by_its_type_and_an_unknown_one_by_its_norms():
    assert family(AutoConfig.for_model("vit"), "image") == "ViT and DeiT"
    assert family(AutoConfig.for_model("resnet"), "image") == "ResNet and RegNet"
    levit = AutoConfig.for_model("levit")
    assert family(levit, "image", (("bn", 0),)) == FALLBACKS[True, True].family
    assert family(levit, "image") == FALLBACKS[True, False].family


def cells(row):
    """Return the lines of the page's two tables that contain a row."""
    names = ", ".join(f"`{name}`" for name in row.model_types)
    up_to = "" if row.narrowest == row.widest else "up to "
    names += f" (hidden size {up_to}{row.widest})" if row.widest else ""
    pattern = f"`{row.timm}`".replace("|", r"\|") if row.timm else ""
    values = (f"{row.head_lr:g}", f"{row.lr:g}", f"{row.layer_decay:g}", f"`{row.train}`", row.pooling)
    return (
        f"| {' | '.join((row.family, names, pattern, *values))} |",
        f"| {row.family} | {row.lr_source} | {row.decay_source} |",
    )


def test_the_page_shows_the_table_as_it_is():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    wanted = [line for row in ROWS for line in cells(row)]
    wanted += [f"| {part.part} | {part.lr:g} | {part.source} |" for part in PARTS]
    assert [line for line in wanted if line not in lines] == []
    shown = [line for line in lines if any(line.startswith(f"| {row.family} |") for row in ROWS)]
    assert sorted(shown) == sorted(line for row in ROWS for line in cells(row))
