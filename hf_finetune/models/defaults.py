"""How checkpoints of each architecture are fine-tuned where a recipe does not say: rates, depth, pooling."""

import re
from typing import Any

from transformers import PreTrainedConfig

from hf_finetune.plan.layers import Layout
from hf_finetune.plan.rates import Defaults

__all__ = ["FALLBACKS", "TABLE", "find_defaults"]

_HERE = "measured here on validation data (docs/rates.md)"
_HEAD = "head: 1e-3, the usual rate of a new layer with AdamW"

TABLE: tuple[Defaults, ...] = (
    Defaults(
        family="MiniLM and other small BERTs",
        head_lr=1e-3,
        lr=1e-4,
        layer_decay=0.9,
        train="all",
        pooling="mean",
        source=f"backbone: {_HERE}; pooling: Reimers & Gurevych 2019; {_HEAD}; "
        "Turc et al. 2019 search 3e-5 to 3e-4 for BERTs of 128 to 512 features",
        model_types=("bert",),
        widest=512,
    ),
    Defaults(
        family="BERT",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.95,
        train="all",
        pooling="own",
        source="Devlin et al. 2019, A.3 (2e-5 to 5e-5); layer decay: Sun et al. 2019 (0.95); " + _HEAD,
        model_types=("bert", "ernie", "mobilebert", "squeezebert", "convbert", "megatron-bert"),
    ),
    Defaults(
        family="DistilBERT",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.95,
        train="all",
        pooling="own",
        source="as BERT, from which it is distilled: Devlin et al. 2019, A.3 (2e-5 to 5e-5); " + _HEAD,
        model_types=("distilbert",),
    ),
    Defaults(
        family="RoBERTa",
        head_lr=1e-3,
        lr=2e-5,
        layer_decay=0.95,
        train="all",
        pooling="own",
        source="Liu et al. 2019, table 10 (1e-5 to 3e-5); layer decay as BERT; " + _HEAD,
        model_types=(
            "roberta",
            "xlm-roberta",
            "camembert",
            "xlm-roberta-xl",
            "roberta-prelayernorm",
            "data2vec-text",
        ),
    ),
    Defaults(
        family="ELECTRA-small",
        head_lr=1e-3,
        lr=3e-4,
        layer_decay=0.8,
        train="all",
        pooling="own",
        source="Clark et al. 2020, table 7 (3e-4, layer decay 0.8); " + _HEAD,
        model_types=("electra",),
        widest=256,
    ),
    Defaults(
        family="ELECTRA",
        head_lr=1e-3,
        lr=1e-4,
        layer_decay=0.8,
        train="all",
        pooling="own",
        source="Clark et al. 2020, table 7, and the authors' configure_finetuning.py (1e-4, layer decay 0.8); "
        + _HEAD,
        model_types=("electra",),
    ),
    Defaults(
        family="DeBERTa",
        head_lr=1e-3,
        lr=2e-5,
        layer_decay=0.95,
        train="all",
        pooling="own",
        source="He et al. 2021, appendix A (base: 1.5e-5 to 4e-5); layer decay as BERT; " + _HEAD,
        model_types=("deberta", "deberta-v2"),
    ),
    Defaults(
        family="ALBERT, XLNet and MPNet",
        head_lr=1e-3,
        lr=2e-5,
        layer_decay=1.0,
        train="all",
        pooling="own",
        source="Lan et al. 2020, table 14 (1e-5 to 3e-5); Song et al. 2020 (1e-5 to 3e-5); " + _HEAD,
        model_types=("albert", "xlnet", "mpnet"),
    ),
    Defaults(
        family="ModernBERT",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.95,
        train="all",
        pooling="own",
        source="Warner et al. 2024, appendix (1e-5 to 8e-5); layer decay as BERT; " + _HEAD,
        model_types=("modernbert",),
    ),
    Defaults(
        family="DINOv2 and DINOv3",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.75,
        train="all",
        pooling="own",
        source="as ViT, whose architecture it has (Oquab et al. 2023); " + _HEAD,
        model_types=("dinov2", "dinov2_with_registers", "dinov3_vit"),
        timm=r"vit_.*dinov[23]",
    ),
    Defaults(
        family="BEiT",
        head_lr=1e-3,
        lr=1e-4,
        layer_decay=0.65,
        train="all",
        pooling="mean",
        source="Bao et al. 2022, appendix (base: 3e-3 for 1,024 examples a step, layer decay 0.65, mean pooling), by "
        "examples a step; " + _HEAD,
        model_types=("beit", "data2vec-vision"),
        timm="beit|eva",
    ),
    Defaults(
        family="ViT and DeiT",
        head_lr=1e-3,
        lr=6e-5,
        layer_decay=0.75,
        train="all",
        pooling="own",
        source="He et al. 2022 (MAE), the authors' FINETUNE.md (5e-4 for 256 examples a step, by examples a step; "
        "layer decay 0.65 to 0.75); " + _HEAD,
        model_types=("vit", "deit", "vit_msn", "vit_mae", "siglip", "clip", "ijepa"),
        timm="vit_|deit|flexivit|samvit|cait|xcit",
    ),
    Defaults(
        family="Swin",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.9,
        train="all",
        pooling="mean",
        source="Liu et al. 2021, the authors' configs (2e-5 for 1,024 examples a step, 1e-4 for new tasks); "
        "layer decay: Xie et al. 2022 (SimMIM: 0.9); " + _HEAD,
        model_types=("swin", "swinv2", "donut-swin"),
        timm="swin",
    ),
    Defaults(
        family="ConvNeXt",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.8,
        train="all",
        pooling="mean",
        source="Liu et al. 2022, the authors' TRAINING.md (5e-5, layer decay 0.7 to 0.8); " + _HEAD,
        model_types=("convnext", "convnextv2", "dinov3_convnext"),
        timm="convnext",
    ),
    Defaults(
        family="EfficientNet and MobileNet",
        head_lr=3e-3,
        lr=1e-3,
        layer_decay=1.0,
        train="all",
        pooling="mean",
        source=f"backbone: {_HERE}; head: as recipes/quickstart.yaml",
        model_types=("efficientnet", "mobilenet_v1", "mobilenet_v2"),
        timm=r"(tf_)?(efficientnet|mixnet|mobilenet|fbnet|mnasnet|spnasnet|lcnet|tinynet|ghostnet|semnasnet|rexnet)",
    ),
    Defaults(
        family="ResNet and RegNet",
        head_lr=2e-3,
        lr=1e-3,
        layer_decay=0.9,
        train="all",
        pooling="mean",
        source="fastai's Learner.fine_tune (Howard & Gugger 2020: 2e-3 for the head, then 1e-3, falling to a "
        "hundredth of it at the input)",
        model_types=("resnet", "regnet"),
        timm=r"(wide_|legacy_)?(cs|se|sk|eca|gc|t)?res(net|next|nest)|regnet|res2ne",
    ),
)
"""The first row that fits a checkpoint holds."""

FALLBACKS = {
    "text": Defaults(
        family="text models that docs/rates.md does not list",
        head_lr=1e-3,
        lr=3e-5,
        layer_decay=0.95,
        train="all",
        pooling="own",
        source="the middle of the range for BERT (Devlin et al. 2019, A.3)",
    ),
    "image": Defaults(
        family="image models without BatchNorm that docs/rates.md does not list",
        head_lr=1e-3,
        lr=5e-5,
        layer_decay=0.8,
        train="all",
        pooling="own",
        source="between ViT and ConvNeXt, see there",
    ),
    "batch_norm": Defaults(
        family="image models with BatchNorm that docs/rates.md does not list",
        head_lr=2e-3,
        lr=1e-3,
        layer_decay=0.9,
        train="all",
        pooling="mean",
        source="as ResNet, see there",
    ),
}
"""Of architectures that are in no row."""


def find_defaults(config: PreTrainedConfig, layout: Layout, modality: str) -> Defaults:
    """Return the defaults of a checkpoint's architecture, or those for architectures that are not known.

    Args:
        config: Of the checkpoint.
        layout: Of its model.
        modality: ``image`` or ``text``.
    """
    model_type = config.model_type
    timm_name = str(getattr(config, "architecture", "")) if model_type == "timm_wrapper" else ""
    text_config: Any = config.get_text_config() if modality == "text" else config
    width = getattr(text_config, "hidden_size", None)
    for row in TABLE:
        fits = re.match(row.timm, timm_name) if timm_name and row.timm else model_type in row.model_types
        if fits and (row.widest is None or (isinstance(width, int) and width <= row.widest)):
            return row
    return FALLBACKS["batch_norm" if modality == "image" and layout.batch_norms else modality]
