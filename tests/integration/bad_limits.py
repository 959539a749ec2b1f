"""Bad inputs: settings and inputs beyond the limits of a checkpoint."""

from collections.abc import Callable
from pathlib import Path

from bad_input_case import Case
from transformers import AutoTokenizer, ViTConfig, ViTForImageClassification, ViTImageProcessor

__all__ = ["CASES"]


def _without_limit(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(folder / "bert")


def _more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    tokenizer.add_tokens(["zzza", "zzzb"])
    tokenizer.save_pretrained(folder / "bert")


def _vit(**fields: object) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = ViTConfig(**{**sizes, "image_size": 32, "patch_size": 16, **fields})
        ViTForImageClassification(config).save_pretrained(folder / "vit")
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")

    return save


CASES = [
    Case(
        "`max_length` above the model's position embeddings",
        "run text.yaml data.max_length=64",
        "Problem:\n  data.max_length must be at most the 16 tokens that the checkpoint accepts. Got 64.",
        _without_limit,
    ),
    Case(
        "a text longer than the maximum of the model",
        f"predict bert good '{'good ' * 20}'",
        "1 of 2 texts was truncated on the right: the model accepts at most 16 tokens.",
        code=0,
    ),
    Case(
        "a tokenizer with more tokens than embeddings",
        "run text.yaml",
        (
            "Problem:\n"
            "  model.path must have an embedding for every token of the tokenizer. Got './bert'. It has 15 "
            "embeddings, but none for 'zzza', 'zzzb'. Set model.resize_embeddings: true, and train the "
            "embeddings, or use the checkpoint's own tokenizer."
        ),
        _more_tokens,
    ),
    Case(
        "a model for images with one channel",
        "plan recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a model for images with 3 channels: all images are read as RGB, also by "
            "pipeline(). Got './vit' with 1 channel. Use a checkpoint for RGB images, or repeat or sum "
            "the weights of its first layer to 3 channels."
        ),
        _vit(num_channels=1),
    ),
    Case(
        "an image processor whose output size does not fit the model",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a model that can process the data. Got './vit'. "
            "Model error: Input image size (32*32) doesn't match model (32*48)."
        ),
        _vit(image_size=(32, 48)),
    ),
]
