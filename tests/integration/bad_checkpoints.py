"""Bad inputs: checkpoints."""

from collections.abc import Callable

import torch
from bad_input_case import Case
from bad_input_steps import config, cut, delete, weights, write

__all__ = ["CASES"]


def _broken(name: str) -> Callable[[dict], dict]:
    """Set one value of a tensor to nan."""

    def change(tensors: dict) -> dict:
        tensors[name].view(-1)[3] = float("nan")
        return tensors

    return change


EMBEDDINGS = "vit.embeddings.patch_embeddings.projection.weight"

CASES = [
    Case(
        "a checkpoint with a NaN weight",
        "plan recipe.yaml",
        (
            "Problem:\n"
            "  model.path must contain finite weights. Got nan in "
            "vit.embeddings.patch_embeddings.projection.weight of model.safetensors. Download or copy it "
            "again, or use another checkpoint: training cannot repair it."
        ),
        weights("vit/model.safetensors", _broken(EMBEDDINGS)),
    ),
    Case(
        "a misspelled checkpoint path",
        "run recipe.yaml model=./vitt",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got './vitt'. Nearest: './vit'."
        ),
    ),
    Case(
        "a folder without a checkpoint",
        "run recipe.yaml model=photos",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got './photos'. It has no config.json."
        ),
    ),
    Case(
        "a checkpoint on the Hub without network access",
        "run recipe.yaml model=google/vit-base-patch16-224-in21k",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got 'google/vit-base-patch16-224-in21k'. There is no such folder. If it is on the "
            "Hub, check the name, the network and your access."
        ),
    ),
    Case(
        "a misspelled timm name",
        "run recipe.yaml model=timm/resnet5O.a1_in1k",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got 'timm/resnet5O.a1_in1k'. Nearest: 'timm/resnet50_gn'."
        ),
    ),
    Case(
        "an invalid config.json",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got './vit'. Its config.json cannot be read: It looks like the config file at "
            "'./vit/config.json' is not a valid JSON file."
        ),
        write("vit/config.json", '{"model_type": "vit",'),
    ),
    Case(
        "a config.json with a list as id2label",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got "
            "'./vit'. Its config.json cannot be read: id2label must be a mapping such as {\"0\": "
            '"cake", "1": "soup"}. Got a list.'
        ),
        config("vit/config.json", id2label=["cake", "soup"]),
    ),
    Case(
        "a config.json with 1,000,000,000 layers",
        "plan recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got "
            "'./vit'. Its config.json cannot be read: num_hidden_layers must be a number of layers, at most "
            "10,000. "
            "Got 1,000,000,000."
        ),
        config("vit/config.json", num_hidden_layers=10**9),
    ),
    Case(
        "an image processor with a negative size",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a checkpoint with an image processor that can be loaded. Got './vit'."
            " preprocessor_config.json is damaged: RuntimeError: Input and output sizes should be "
            "greater than 0, but got input (H: 8, W: 8) output (H: -4, W: 32)"
        ),
        config("vit/preprocessor_config.json", size={"height": -4, "width": 32}),
    ),
    Case(
        "an unknown architecture",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got './vit'. Its config.json cannot be read: The checkpoint you are trying to load "
            "has model type `vitt` but Transformers does not recognize this architecture. This "
            "could be because of an issue with the checkpoint, or because your version of ..."
        ),
        config("vit/config.json", model_type="vitt"),
    ),
    Case(
        "a text model for images",
        "run recipe.yaml model=bert",
        (
            "Problem:\n"
            "  model.path must be a checkpoint from which transformers can build an image classifier. "
            "Got a 'bert' model."
        ),
    ),
    Case(
        "an image model for texts",
        "run text.yaml model=vit",
        (
            "Problem:\n"
            "  model.path must be a checkpoint from which transformers can build a text classifier. "
            "Got a 'vit' model."
        ),
    ),
    Case(
        "a checkpoint without its image processor",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  model.path must be a checkpoint with an image processor. Got './vit'. It lacks "
            "preprocessor_config.json."
        ),
        delete("vit/preprocessor_config.json"),
    ),
    Case(
        "a checkpoint without its weights",
        "run recipe.yaml --output-dir new",
        ("Problem:\n  model.path must contain weights. Got './vit'. It has no model.safetensors."),
        delete("vit/model.safetensors"),
    ),
    Case(
        "truncated weights",
        "run recipe.yaml --output-dir new",
        (
            "Problem:\n"
            "  model.path must contain intact weight files. Got './vit'. A file is damaged or truncated: "
            "download it again."
        ),
        cut("vit/model.safetensors", 9000),
    ),
    Case(
        "empty weight files",
        "run recipe.yaml --output-dir new",
        (
            "Problem:\n"
            "  model.path must contain intact weight files. Got './vit'. A file is damaged or truncated: "
            "download it again."
        ),
        cut("vit/model.safetensors", 0),
    ),
    Case(
        "missing weights of a layer",
        "run recipe.yaml --output-dir new",
        (
            "Problem:\n"
            "  model.path must contain every weight outside the head. Got './vit'. It lacks "
            "vit.embeddings.patch_embeddings.projection.weight. Add the names to model.allow_missing "
            "if this is intended."
        ),
        weights(
            "vit/model.safetensors", lambda tensors: {k: v for k, v in tensors.items() if k != EMBEDDINGS}
        ),
    ),
    Case(
        "unexpected weights",
        "run recipe.yaml --output-dir new",
        (
            "Problem:\n"
            "  model.path must contain only weights of its architecture. Got './vit'. It also contains "
            "vit.adapter.weight. Add the names to model.allow_missing if this is intended."
        ),
        weights("vit/model.safetensors", lambda tensors: {**tensors, "vit.adapter.weight": torch.ones(2)}),
    ),
    Case(
        "weights with a different shape",
        "run recipe.yaml --output-dir new",
        (
            "Problem:\n"
            "  model.path must contain vit.embeddings.patch_embeddings.projection.weight with shape "
            "[16, 3, 16, 16]. Got [16, 3, 8, 8]. Add the names to model.allow_missing if this is intended."
        ),
        weights("vit/model.safetensors", lambda tensors: {**tensors, EMBEDDINGS: torch.ones(16, 3, 8, 8)}),
    ),
    Case(
        "an image size that the checkpoint does not support",
        "run recipe.yaml --output-dir new data.image_size=48",
        (
            "Problem:\n"
            "  data.image_size must be a size that the model can process. Got 48. Model error: Input image size "
            "(48*48) doesn't match model (32*32)."
        ),
    ),
]
