"""Augmentations of images, each with another head, and a recipe for them."""

from hf_finetune.recipe.load import parse_recipe

__all__ = ["VARIED", "varied_recipe"]

VARIED = {
    "seeds-mlp": ({"preset": "seeds", "erase": 0.5}, {"type": "mlp", "hidden": [8], "dropout": 0.0}),
    "trivial-mean": ("trivial", {"pool": "mean"}),
    "randaugment-cosine": ("randaugment", "cosine"),
    "named-attention": (
        {
            "transforms": [
                {"name": "RandomRotation", "args": {"degrees": 30}},
                {"name": "rand_augment_transform", "args": {"config_str": "rand-m9-mstd0.5"}},
                {"name": "RandomErasing", "args": {"p": 1.0}},
            ]
        },
        {"pool": "attention"},
    ),
    "strong-cls": ("strong", {"pool": "cls"}),
}


def varied_recipe(squares, checkpoint, name, batch_size):
    """Return two stages on squares with an augmentation and no other random numbers."""
    augment, head = VARIED[name]
    common = {"epochs": 2.0, "batch_size": batch_size, "optimizer": "sgd", "best": None}
    return parse_recipe(
        {
            "task": "image-classification",
            "model": {"path": str(checkpoint), "head": head},
            "data": {"path": str(squares), "augment": augment, "split": {"validation": 0.2, "test": 0.2}},
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.01, **common},
            ],
            "evaluation": {"linear_probe": None},
        }
    )
