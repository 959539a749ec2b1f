"""Settings of the benchmarks.

The functions return recipes of hf-finetune without ``model``, ``data.path`` and ``seed``, which the benchmark fills in.
A stage of another contender has the trained parameters (``head``, ``all``, or prefixes of parameter names), the number
of epochs, and the peak learning rate.
"""

from typing import Any

__all__ = [
    "BATCH_SIZE",
    "FASTAI_RATE",
    "GPU",
    "HEAD_EPOCHS",
    "IMAGE_SIZE",
    "LIGHTNING_RATES",
    "LONG_HEAD_EPOCHS",
    "OVERHEAD",
    "RECIPE_EPOCHS",
    "SCALE",
    "SENTIMENT",
    "STOCK_RATES",
    "VIT",
    "head_recipe",
    "sentiment_recipe",
    "two_stage_recipe",
    "vit_recipe",
]

Content = dict[str, Any]

BATCH_SIZE = 32
IMAGE_SIZE = 128  # pixels
HEAD_EPOCHS = 5
LONG_HEAD_EPOCHS = 20  # a second time, to show the gain with more epochs
RECIPE_EPOCHS = (5, 4)  # head, all

# Learning rates of the other contenders with AdamW: head stage, then all layers. The stock Trainer decays them linearly
# by default; Lightning has no default schedule, and the head keeps its rate in the second phase. Of 3e-4, 1e-3 and 2e-3
# for all layers, the last was best for the stock script: accuracies of 0.810, 0.825 and 0.839 (seed 0).
RATES = (3e-3, 2e-3)
STOCK_RATES = LIGHTNING_RATES = RATES
FASTAI_RATE = 2e-3  # fastai's default base_lr, from which fine_tune computes the others

IMAGE_DATA: Content = {
    "columns": {"image": "image", "label": "label"},
    "split": {"validation": 0, "test": 0},
    "crop_pct": 1.0,
    "augment": "standard",
    "workers": 0,
}
KEEP_LAST: Content = {"schedule": "cosine", "batch_size": BATCH_SIZE, "best": None}

# `speed` of the recipes of hf-finetune.
HEAD_SPEED: str | Content = "auto"
TWO_STAGE_SPEED: str | Content = "auto"
VIT_SPEED: Content = {"prefix_cache": {"views": 2}}
TEXT_SPEED: str | Content = "auto"


def head_recipe(epochs: int) -> Content:
    """Return the recipe of the head stage alone."""
    stage = {"name": "head", "train": "head", "epochs": epochs, "lr": RATES[0], "label_smoothing": 0.1}
    return _image_recipe([{**stage, **KEEP_LAST}], IMAGE_SIZE, HEAD_SPEED)


def two_stage_recipe(epochs: tuple[int, int]) -> Content:
    """Return the recipe of the head stage and of a stage of the last 4 layer groups.

    Epochs with the cache cost so little that it has three or four times as many as the other contenders; the wide first
    layers, which cost most, stay frozen.

    Args:
        epochs: Epochs of the other contenders' stages.
    """
    head: Content = {
        "name": "head",
        "train": "head",
        "epochs": 4 * epochs[0],
        "optimizer": "sgd",
        "lr": 0.05,
        "label_smoothing": 0.2,
    }
    layers: Content = {
        "name": "layers",
        "train": "last:4",
        "epochs": 3 * epochs[1],
        "lr": 1e-3,
        "warmup": 0.1,
        "label_smoothing": 0.1,
    }
    return _image_recipe([{**head, **KEEP_LAST}, {**layers, **KEEP_LAST}], IMAGE_SIZE, TWO_STAGE_SPEED)


VIT: Content = {
    "architecture": "vit_small_patch16_224",
    "train": 256,
    "evaluation": 64,
    "epochs": 4,
    "image_size": 224,
    "lr": 1e-4,
    # Parameters of `last:4`: the last third of the 12 blocks, the norm after them, and the head.
    "selector": "last:4",
    "prefixes": [
        *(f"timm_model.blocks.{number}." for number in (8, 9, 10, 11)),
        "timm_model.norm.",
        "timm_model.head.",
    ],
}


def vit_recipe(epochs: int, precision: str, image_size: int) -> Content:
    """Return the recipe of the last third of a ViT."""
    stage = {"name": "last", "train": VIT["selector"], "epochs": epochs, "lr": VIT["lr"]}
    return _image_recipe([{**stage, **KEEP_LAST}], image_size, {**VIT_SPEED, "precision": precision})


def _image_recipe(stages: list[Content], image_size: int, speed: str | Content) -> Content:
    return {
        "task": "image-classification",
        "data": {**IMAGE_DATA, "image_size": image_size},
        "stages": stages,
        "metrics": ["accuracy"],
        "evaluation": {"batch_size": 64},
        "speed": speed,
    }


SENTIMENT: Content = {
    "train": 1000,
    "evaluation": 500,
    "max_length": 128,  # tokens
    # head, then all layers: as recipes/text/sentiment-minilm.yaml
    "epochs": (1, 2),
    "rates": (1e-2, 1e-4),
}


def sentiment_recipe(epochs: tuple[int, int]) -> Content:
    """Return the recipe of the film reviews."""
    rates = SENTIMENT["rates"]
    kept: Content = {"batch_size": BATCH_SIZE, "best": None}
    head: Content = {"name": "head", "train": "head", "epochs": epochs[0], "lr": rates[0], **kept}
    everything: Content = {"name": "all", "train": "all", "epochs": epochs[1], "lr": rates[1], **kept}
    return {
        "task": "text-classification",
        "data": {
            "columns": {"text": "text", "label": "label"},
            "split": {"validation": 0, "test": 0},
            "max_length": SENTIMENT["max_length"],
            "workers": 0,
        },
        "stages": [head, everything],
        "metrics": ["accuracy"],
        "evaluation": {"batch_size": 64},
        "speed": TEXT_SPEED,
    }


# The head of EfficientNet-lite0 with the prefix cache: 1,280 numbers (5 KB) per example.
SCALE: Content = {
    "examples": (1_000, 10_000, 100_000),
    "processes": (1, 2),
    "epochs": 3,
    "image_size": 32,  # pixels; the size of a row does not depend on it, and small images are faster
    "lr": 1e-2,
}

# All layers trained, on images in memory: only the loop differs.
OVERHEAD: Content = {
    "steps": 30,
    "warmup_steps": 5,  # not timed
    "image_size": IMAGE_SIZE,
    "lr": 1e-3,
    "memory_format": "channels_last",
}

# Random weights; the time depends on the number of classes, not on the predictions.
CLASSES: Content = {
    "classes": (2_000, 5_000),
    "examples": 1_500,
    "image_size": 160,  # pixels
    "repeats": 3,  # repetitions of forward pass and task in one process
}

# Random weights and random inputs in memory; the speed does not depend on their values.
GPU: Content = {
    "batch_size": 256,
    "workers": 8,
    "steps": 40,
    "warmup_steps": 10,
    "head_examples": 8192,
    "head_epochs": 5,
    "head_lr": 1e-2,
    "full_lr": 1e-4,
    "tokens": 128,
    "matrix": 8192,  # rows and columns of the matrix product that measures the card's rate
    "speed": {"precision": "bf16", "compile": True},
    "head_speed": {"precision": "bf16", "prefix_cache": {"views": 1}},
    "config": {"vit": {}, "bert": {}},  # ViT-B/16 and BERT-base are the defaults of transformers' configs
}
