"""The table of default rates by architecture, and the page that shows it."""

import re
from pathlib import Path

import pytest
import timm
from transformers import AutoConfig, TimmWrapperConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from hf_finetune.models.defaults import FALLBACKS, TABLE, find_defaults
from hf_finetune.plan.layers import Layout
from hf_finetune.plan.rates import RATES_OF_PARTS
from hf_finetune.plan.selectors import form_problems

PAGE = Path(__file__).parents[2] / "docs" / "rates.md"
ROWS = (*TABLE, *FALLBACKS.values())


def family(config, modality, batch_norms=()):
    return find_defaults(config, Layout((), ("head",), batch_norms), modality).family


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.family)
def test_every_row_is_complete_and_has_a_source(row):
    assert 1e-5 <= row.lr <= row.head_lr <= 1e-2
    assert 0.5 <= row.layer_decay <= 1
    assert row.pooling in ("own", "mean", "cls")
    assert form_problems(row.train, "train") == []
    assert re.search(r"(19|20)\d\d|see there|measured here", row.source)


def test_every_row_of_the_table_can_be_reached_and_no_fallback_is_named_by_a_checkpoint():
    assert all(row.model_types or row.timm for row in TABLE)
    assert not any(row.model_types or row.timm for row in FALLBACKS.values())
    known = set(CONFIG_MAPPING_NAMES)
    assert {name for row in TABLE for name in row.model_types} <= known
    assert all(any(re.match(row.timm, name) for name in timm.list_models()) for row in TABLE if row.timm)


@pytest.mark.parametrize(
    ("model_type", "width", "wanted"),
    [
        ("bert", 384, "MiniLM and other small BERTs"),
        ("bert", 512, "MiniLM and other small BERTs"),
        ("bert", 768, "BERT"),
        ("distilbert", None, "DistilBERT"),
        ("xlm-roberta", 768, "RoBERTa"),
        ("electra", 256, "ELECTRA-small"),
        ("electra", 768, "ELECTRA"),
        ("deberta-v2", 768, "DeBERTa"),
        ("gpt2", None, "text models that docs/rates.md does not list"),
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
        ("swinv2_tiny_window8_256", "Swin"),
        ("convnext_tiny", "ConvNeXt"),
        ("resnet50", "ResNet and RegNet"),
        ("resnext50_32x4d", "ResNet and RegNet"),
        ("resnetv2_50", "ResNet and RegNet"),
        ("wide_resnet50_2", "ResNet and RegNet"),
        ("regnety_032", "ResNet and RegNet"),
        ("vgg16", "image models without BatchNorm that docs/rates.md does not list"),
    ],
)
def test_a_model_of_timm_is_found_by_its_name(name, wanted):
    assert timm.is_model(name)
    assert family(TimmWrapperConfig(architecture=name, num_labels=2), "image") == wanted


def test_an_image_model_of_transformers_is_found_by_its_type_and_an_unknown_one_by_its_norms():
    assert family(AutoConfig.for_model("vit"), "image") == "ViT and DeiT"
    assert family(AutoConfig.for_model("resnet"), "image") == "ResNet and RegNet"
    levit = AutoConfig.for_model("levit")
    assert family(levit, "image", (("bn", 0),)) == FALLBACKS["batch_norm"].family
    assert family(levit, "image") == FALLBACKS["image"].family


def cells(row):
    names = ", ".join(f"`{name}`" for name in row.model_types)
    names += f" (up to {row.widest} features)" if row.widest else ""
    pattern = f"`{row.timm}`".replace("|", r"\|") if row.timm else ""
    values = (f"{row.head_lr:g}", f"{row.lr:g}", f"{row.layer_decay:g}", f"`{row.train}`", row.pooling)
    return f"| {' | '.join((row.family, names, pattern, *values, row.source))} |"


def test_the_page_shows_the_table_as_it_is():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    wanted = [cells(row) for row in ROWS]
    wanted += [f"| {part.part} | {part.lr:g} | {part.source} |" for part in RATES_OF_PARTS.values()]
    assert [line for line in wanted if line not in lines] == []
    assert len([line for line in lines if re.match(r"\| .* \| \d", line)]) >= len(wanted)
