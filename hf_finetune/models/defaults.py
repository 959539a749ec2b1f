"""Default learning rates, training depth and pooling by architecture, for recipes that leave them open."""

import re
from typing import Any

from transformers import PreTrainedConfig

from hf_finetune.planning.layers import Layout
from hf_finetune.planning.rates import Defaults
from hf_finetune.tasks import Modality

__all__ = ["FALLBACKS", "TABLE", "find_defaults", "find_defaults_row"]

_AS_BERT = "convention: as BERT"

TABLE: tuple[Defaults, ...] = (
    Defaults(
        family="MiniLM",
        lr=3e-5,
        layer_decay=0.9,
        train="last:2",
        pooling="mean",
        lr_source="measured here with all-MiniLM-L6-v2, compared with 1e-4 (and with 3e-4 for `train: all`)",
        decay_source="measured here with all-MiniLM-L6-v2, together with the rate",
        model_types=("bert",),
        narrowest=384,
        widest=384,
    ),
    Defaults(
        family="small BERTs",
        lr=1e-4,
        layer_decay=0.9,
        lr_source="stated: Turc et al. 2019 search 3e-5 to 3e-4 for BERTs of 128 to 768 features, with batch sizes 8 "
        "to 128 (google-research/bert, README.md)",
        decay_source="convention: as MiniLM",
        model_types=("bert",),
        widest=512,
    ),
    Defaults(
        family="BERT",
        lr=5e-5,
        layer_decay=0.95,
        lr_source="stated: Devlin et al. 2019, appendix A.3 (2e-5, 3e-5 or 5e-5, with batch size 16 or 32); "
        "MobileBERT: Sun, Yu et al. 2020 (1e-5 to 1e-4, with batch sizes 16 to 48); the others: convention, as BERT",
        decay_source="stated: Sun, Qiu et al. 2019, table 4 (0.95 with 2e-5: test error on IMDb 5.40 %, against 5.42 % "
        "without decay); the others: convention, as BERT",
        model_types=("bert", "ernie", "mobilebert", "squeezebert", "megatron-bert"),
    ),
    Defaults(
        family="DistilBERT",
        lr=5e-5,
        layer_decay=0.95,
        lr_source="convention: the upper end of the range of BERT, which it is distilled from; transformers' guide has "
        "2e-5 with batch size 16 (huggingface/transformers, docs/source/en/tasks/sequence_classification.md)",
        decay_source=_AS_BERT,
        model_types=("distilbert",),
    ),
    Defaults(
        family="RoBERTa",
        lr=2e-5,
        layer_decay=0.95,
        lr_source="stated: Liu et al. 2019, table 10 (RoBERTa-large: 1e-5, 2e-5 or 3e-5, with batch size 16 or 32), "
        "and facebookresearch/fairseq, examples/roberta/README.glue.md (1e-5 or 2e-5); the others: "
        "convention, as RoBERTa",
        decay_source=_AS_BERT,
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
        family="small ELECTRA and ConvBERT",
        lr=3e-4,
        layer_decay=0.8,
        lr_source="stated, with batch size 32: Clark et al. 2020, table 7 (their published code has 1e-4: "
        "google-research/electra, configure_finetuning.py); yitu-opensource/ConvBert, configure_finetuning.py",
        decay_source="stated: in the same places",
        model_types=("electra", "convbert"),
        widest=384,
    ),
    Defaults(
        family="ELECTRA and ConvBERT",
        lr=1e-4,
        layer_decay=0.8,
        lr_source="stated, with batch size 32: Clark et al. 2020, table 7, and google-research/electra, "
        "configure_finetuning.py; yitu-opensource/ConvBert, configure_finetuning.py",
        decay_source="stated: in the same places",
        model_types=("electra", "convbert"),
        widest=768,
    ),
    Defaults(
        family="ELECTRA-large",
        lr=5e-5,
        layer_decay=0.9,
        lr_source="stated, with batch size 32: Clark et al. 2020, table 7, and google-research/electra, "
        "configure_finetuning.py",
        decay_source="stated: in the same places",
        model_types=("electra",),
    ),
    Defaults(
        family="DeBERTa",
        lr=2e-5,
        layer_decay=0.95,
        lr_source="stated: He et al. 2021, table 9 (base: 1.5e-5 to 4e-5, with batch sizes 16 to 64), and "
        "microsoft/DeBERTa, experiments/glue/mnli.sh (v3-base 1.5e-5, base 3e-5, v3-small 4.5e-5, with batch size 64)",
        decay_source=_AS_BERT,
        model_types=("deberta", "deberta-v2"),
        widest=768,
    ),
    Defaults(
        family="DeBERTa-large",
        lr=1e-5,
        layer_decay=0.95,
        lr_source="stated: He et al. 2021, table 9 (large: 5e-6 to 1e-5, with batch sizes 16 to 64), and "
        "microsoft/DeBERTa, experiments/glue/mnli.sh (large 1e-5, v3-large 7e-6, with batch size 64)",
        decay_source=_AS_BERT,
        model_types=("deberta", "deberta-v2"),
    ),
    Defaults(
        family="ALBERT, XLNet and MPNet",
        lr=2e-5,
        layer_decay=1.0,
        lr_source="stated: ALBERT: Lan et al. 2020, table 14 (1e-5 to 3e-5, with batch size 16 or 32); XLNet: "
        "zihangdai/xlnet, README.md (2e-5 for IMDb, 5e-5 for STS-B, with batch size 32); MPNet: microsoft/MPNet, "
        "MPNet/README.glue.md (1e-5 or 2e-5, with batch size 16 or 32)",
        decay_source="stated: XLNet: zihangdai/xlnet, run_classifier.py; the README of MPNet has none; ALBERT has one "
        "layer, used over and over",
        model_types=("albert", "xlnet", "mpnet"),
    ),
    Defaults(
        family="ModernBERT",
        lr=5e-5,
        layer_decay=0.95,
        lr_source="stated: Warner et al. 2024, table 6 (base: 5e-5 or 8e-5, large: 1e-5 to 8e-5, with batch size 64)",
        decay_source=_AS_BERT,
        model_types=("modernbert",),
    ),
    Defaults(
        family="DINOv2 and DINOv3",
        lr=6e-5,
        layer_decay=0.75,
        lr_source="convention: as ViT, whose architecture it has; the authors state no rate (Oquab et al. 2023 use the "
        "training of DeiT III for their table 5)",
        decay_source="convention: as ViT",
        model_types=("dinov2", "dinov2_with_registers"),
        timm=r"vit_.*dinov[23]",
    ),
    Defaults(
        family="BEiT",
        lr=1e-4,
        layer_decay=0.65,
        pooling="mean",
        lr_source="scaled from batch size 1,024 to 32, in proportion: Bao et al. 2022, table 13 (2e-3 "
        "to 5e-3, so 6e-5 to 1.6e-4); data2vec: facebookresearch/data2vec_vision, beit/README.md (4e-3, so 1.3e-4). "
        "Checkpoints that were trained with labels since: 2e-5 with layer decay 0.85 and batch size 512 "
        "(microsoft/unilm, beit/get_started_for_image_classification.md)",
        decay_source="stated: in the same places (base 0.65; BEiT-large 0.75)",
        model_types=("beit", "data2vec-vision"),
        timm="beit",
    ),
    Defaults(
        family="EVA",
        lr=5e-5,
        layer_decay=0.8,
        pooling="mean",
        lr_source="stated, with batch size 512, and not scaled: baaivision/EVA, EVA-02/asuka/README.md (EVA-02-B "
        "after ImageNet-21k; its other checkpoints 2e-5 to 2e-4, with batch size 512 or 1,024)",
        decay_source="stated: in the same place (the other checkpoints 0.7 to 0.9)",
        timm="eva",
    ),
    Defaults(
        family="ViT and DeiT",
        lr=6e-5,
        layer_decay=0.75,
        lr_source="scaled to batch size 32, in proportion, as the authors do: facebookresearch/mae, FINETUNE.md "
        "(ViT-B: 5e-4 for 256 examples, so 6e-5; ViT-L and ViT-H: 1e-3, so 1.2e-4); all but ViT-MAE: convention, as "
        "ViT-MAE",
        decay_source="stated: He et al. 2022, table 9 (FINETUNE.md has 0.65 for ViT-B, 0.75 for ViT-L and ViT-H)",
        model_types=("vit", "deit", "vit_msn", "vit_mae", "siglip", "clip", "ijepa"),
        timm="vit_|deit|flexivit|samvit|cait|xcit",
    ),
    Defaults(
        family="Swin",
        lr=5e-5,
        layer_decay=0.9,
        pooling="mean",
        lr_source="convention, between two stated rates: 6e-5 for a new task with batch size 16 "
        "(open-mmlab/mmsegmentation, configs/swin, ADE20K), and 2e-5 from ImageNet-22k to 1k with batch size 512 "
        "(microsoft/Swin-Transformer, configs/swin, with main.py)",
        decay_source="stated: Xie et al. 2022, SimMIM (microsoft/SimMIM, configs/swin_base__100ep; after 800 epochs of "
        "pretraining 0.8: microsoft/Swin-Transformer, configs/simmim)",
        model_types=("swin", "swinv2", "donut-swin"),
        timm="swin",
    ),
    Defaults(
        family="ConvNeXt",
        lr=5e-5,
        layer_decay=0.9,
        pooling="mean",
        lr_source="stated, with batch size 512, and not scaled: facebookresearch/ConvNeXt, TRAINING.md (for a new "
        "task 1e-4 with batch size 16: semantic_segmentation/configs/convnext)",
        decay_source="scaled: the authors' 0.8 is for 12 groups of up to three blocks (facebookresearch/ConvNeXt, "
        "TRAINING.md and optim_factory.py); here every block is a group, so that the same rate at the input takes 0.86 "
        "(18 blocks) to 0.93 (36)",
        model_types=("convnext", "convnextv2"),
        timm="convnext",
    ),
    Defaults(
        family="EfficientNet and MobileNet",
        head_lr=3e-3,
        lr=1e-3,
        layer_decay=1.0,
        train="last:6",
        pooling="mean",
        lr_source="measured here with EfficientNet-lite0, compared with 3e-4 and 3e-3 for `train: all`; the "
        "others: convention, as EfficientNet",
        decay_source="measured here with EfficientNet-lite0, together with the rate",
        model_types=("efficientnet", "mobilenet_v1", "mobilenet_v2"),
        timm=r"(tf_)?(efficientnet|mixnet|mobilenet|fbnet|mnasnet|spnasnet|lcnet|tinynet|ghostnet|semnasnet|rexnet)",
    ),
    Defaults(
        family="ResNet and RegNet",
        head_lr=2e-3,
        lr=1e-3,
        layer_decay=0.8,
        pooling="mean",
        lr_source="stated: fastai/fastai, fastai/callback/schedule.py, Learner.fine_tune (2e-3 for the head alone, "
        "then 1e-3 for the head and less below it); RegNet: convention, as ResNet",
        decay_source="scaled: the first half of the backbone has a hundredth of the head's rate (fastai/fastai, "
        "fastai/callback/schedule.py and fastai/vision/learner.py); over the 17 groups of ResNet-50 that takes 0.76",
        model_types=("resnet", "regnet"),
        timm=r"(wide_|legacy_)?(cs|se|sk|eca|gc|t)?res(net|next|nest)|regnet|res2ne",
    ),
)
"""Defaults by architecture; the first row that matches a checkpoint applies."""

FALLBACKS: dict[tuple[bool, bool], Defaults] = {
    (False, False): Defaults(
        family="unlisted text and speech models",
        lr=3e-5,
        layer_decay=0.95,
        lr_source="convention: the middle of BERT's range",
        decay_source=_AS_BERT,
    ),
    (True, False): Defaults(
        family="unlisted image models without BatchNorm",
        lr=5e-5,
        layer_decay=0.8,
        lr_source="convention: as Swin and ConvNeXt",
        decay_source="convention: between ViT and ConvNeXt",
    ),
    (True, True): Defaults(
        family="unlisted image models with BatchNorm",
        head_lr=2e-3,
        lr=1e-3,
        layer_decay=0.9,
        pooling="mean",
        lr_source="convention: as ResNet",
        decay_source="convention: nearer 1 than ResNet, as many of these have more layer groups",
    ),
}
"""Defaults of architectures that no row of ``TABLE`` matches, by whether inputs are spatial and BatchNorm is used."""


def find_defaults(config: PreTrainedConfig, layout: Layout, modality: Modality) -> Defaults:
    """Return the defaults of a checkpoint's architecture, or the fallback if no row of ``TABLE`` matches.

    Args:
        config: Config of the checkpoint.
        layout: Layout of its model.
        modality: Kind of input.
    """
    has_batch_norms = modality.is_spatial and bool(layout.batch_norms)
    return find_defaults_row(config) or FALLBACKS[modality.is_spatial, has_batch_norms]


def find_defaults_row(config: PreTrainedConfig) -> Defaults | None:
    """Return the row of ``TABLE`` that matches a checkpoint's architecture; None if there is none."""
    model_type = config.model_type
    timm_name = str(getattr(config, "architecture", "")) if model_type == "timm_wrapper" else ""
    width = getattr(config.get_text_config(), "hidden_size", None)
    for row in TABLE:
        fits = re.match(row.timm, timm_name) if timm_name and row.timm else model_type in row.model_types
        if fits and _matches_width(row, width):
            return row
    return None


def _matches_width(row: Defaults, width: Any) -> bool:
    if row.narrowest is None and row.widest is None:
        return True
    return isinstance(width, int) and (row.narrowest or 0) <= width <= (row.widest or width)
