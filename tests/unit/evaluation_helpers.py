"""Tiny models with random weights, saved as a run saves them."""

import timm
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

WORDS = ["good", "bad", "film", "plot", "very", "boring", "great", "not", "##s", "the"]
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def label_maps(names, target):
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": PROBLEM_TYPES[target],
    }


def save_vit(folder, names=("soup", "cake", "tea"), target="single_label"):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        initializer_range=1.0,
        **label_maps(names, target),
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_timm(folder, names=("soup", "cake", "tea")):
    torch.manual_seed(0)
    pretrained_cfg = timm.create_model("test_resnet", pretrained=False).pretrained_cfg
    config = TimmWrapperConfig(
        architecture="test_resnet",
        model_args={},
        pretrained_cfg={
            key: pretrained_cfg[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct")
        },
        **label_maps(names, "single_label"),
    )
    model = TimmWrapperForImageClassification(config)
    # Weights of timm start so small that the features are of size 1e-5.
    torch.nn.init.normal_(model.timm_model.get_classifier().weight, std=1e5)
    model.save_pretrained(folder)
    return folder


def save_bert(folder, names=("bad", "good"), target="single_label", max_length=16):
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=max_length,
        initializer_range=1.0,
        **label_maps(names, target),
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(
        vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=max_length
    ).save_pretrained(folder)
    return folder
