"""Tiny data of two tasks of one kind, and recipes for them."""

from hf_finetune.recipe.load import parse_recipe

__all__ = ["image_recipe", "squares_by_shade", "text_recipe", "texts_by_length"]

COMMON = {"epochs": 2.0, "batch_size": 4}


def squares_by_shade(squares, path):
    """Write a csv of 24 of the 36 squares, labelled dark or bright."""
    files = sorted(squares.rglob("*.png"))
    kept = [file for index, file in enumerate(files) if index % 3]
    rows = [f"{file},{'dark' if int(file.stem) < 6 else 'bright'}" for file in kept]
    path.write_text("\n".join(["image,shade", *rows, ""]), encoding="utf-8")
    return path


def texts_by_length(path, labels="amount"):
    """Write a csv of 24 texts with the number of their words, or of 24 with the words that occur in them."""
    words = ["good", "great", "fine", "bad", "poor", "dull"]
    texts = [
        " ".join([words[index % 6], *["the film"] * (1 + index % 5), words[index // 6]])
        for index in range(24)
    ]
    amounts = [len(text.split()) / 4 + 0.1 for text in texts]
    rows = [f"{text},{amount}" for text, amount in zip(texts, amounts, strict=True)]
    path.write_text("\n".join(["text,words", *rows, ""]), encoding="utf-8")
    return path


def image_recipe(squares, shades, checkpoint, **changes):
    """Return two stages for two tasks on squares, augmented."""
    kind = "image-classification"
    content = {
        "task": "multi-task",
        "model": str(checkpoint),
        "data": {"augment": "strong"},
        "tasks": {
            "colour": {
                "task": kind,
                "data": {"path": str(squares), "split": {"validation": 0.17, "test": 0.17}},
            },
            "shade": {
                "task": kind,
                "data": {
                    "path": str(shades),
                    "columns": {"image": "image", "label": "shade"},
                    "split": {"validation": 0.2, "test": 0.2},
                },
                "weight": 0.5,
            },
        },
        "stages": [
            {"name": "head", "train": "head", "lr": 0.05, "optimizer": "sgd", **COMMON},
            {"name": "all", "train": "last:2", "lr": 0.01, "layer_decay": 0.5, "optimizer": "sgd", **COMMON},
        ],
        "seed": 3,
    }
    return parse_recipe({**content, **changes})


def text_recipe(reviews, words, checkpoint, **changes):
    """Return two stages for a classification and a regression of texts, with dropout and accumulation."""
    kind = "text-classification"
    content = {
        "task": "multi-task",
        "model": checkpoint if isinstance(checkpoint, dict) else str(checkpoint),
        "tasks": {
            "type": {
                "task": kind,
                "data": {"path": str(reviews), "split": {"validation": 0.15, "test": 0.15}},
            },
            "words": {
                "task": kind,
                "data": {
                    "path": str(words),
                    "columns": {"label": "words"},
                    "split": {"validation": 0.2, "test": 0.2},
                },
            },
        },
        "mixing": "equal",
        "weighting": "uncertainty",
        "stages": [
            {"name": "head", "train": "head", "lr": 0.05, "accumulation": 2, **COMMON},
            {"name": "all", "train": "all", "lr": 0.005, "accumulation": 2, "layer_decay": 0.9, **COMMON},
        ],
    }
    return parse_recipe({**content, **changes})
