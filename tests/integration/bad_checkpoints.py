"""Bad inputs: checkpoints."""

import torch
from bad_input_case import Case
from bad_input_steps import change, config, cut, delete, do, text, weights, write

__all__ = ["CASES"]

EMBEDDINGS = "vit.embeddings.patch_embeddings.projection.weight"

CASES = [
    Case("a checkpoint's path with a typing error", "run recipe.yaml model=./vitt", "TODO"),
    Case("a folder that is no checkpoint", "run recipe.yaml model=photos", "TODO"),
    Case("a checkpoint on the Hub without a network", "run recipe.yaml model=google/vit-base-patch16-224-in21k", "TODO"),
    Case("a timm model's name with a typing error", "run recipe.yaml model=timm/resnet5O.a1_in1k", "TODO"),
    Case("a broken config.json", "run recipe.yaml", "TODO", write("vit/config.json", '{"model_type": "vit",')),
    Case("an architecture that transformers does not know", "run recipe.yaml", "TODO", config("vit/config.json", model_type="vitt")),
    Case("a text model for images", "run recipe.yaml model=bert", "TODO"),
    Case("an image model for texts", "run text.yaml model=vit", "TODO"),
    Case("a checkpoint without its tokenizer", "run text.yaml", "TODO", delete("bert/tokenizer.json", "bert/tokenizer_config.json")),
    Case("a checkpoint without its image processor", "run recipe.yaml", "TODO", delete("vit/preprocessor_config.json")),
    Case("a checkpoint without its weights", "run recipe.yaml --output-dir new", "TODO", delete("vit/model.safetensors")),
    Case("truncated weights", "run recipe.yaml --output-dir new", "TODO", cut("vit/model.safetensors", 9000)),
    Case("weights of no bytes", "run recipe.yaml --output-dir new", "TODO", cut("vit/model.safetensors", 0)),
    Case(
        "a layer's weights missing",
        "run recipe.yaml --output-dir new",
        "TODO",
        weights("vit/model.safetensors", lambda tensors: {k: v for k, v in tensors.items() if k != EMBEDDINGS}),
    ),
    Case(
        "weights that belong to no layer",
        "run recipe.yaml --output-dir new",
        "TODO",
        weights("vit/model.safetensors", lambda tensors: {**tensors, "vit.adapter.weight": torch.ones(2)}),
    ),
    Case(
        "weights of another shape",
        "run recipe.yaml --output-dir new",
        "TODO",
        weights("vit/model.safetensors", lambda tensors: {**tensors, EMBEDDINGS: torch.ones(16, 3, 8, 8)}),
    ),
    Case("an image size that the checkpoint cannot take", "run recipe.yaml --output-dir new data.image_size=48", "TODO"),
    Case("an image size below a patch", "run recipe.yaml --output-dir new data.image_size=1", "TODO"),
]
