"""AutoGluon-Multimodal for any images or texts, within a time.

It runs in an environment of its own (``benchmarks/requirements-autogluon.txt``), and imports nothing of the package.
"""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas
import torch
from autogluon.multimodal import MultiModalPredictor
from safetensors.torch import load_file

__all__ = ["measure"]

PRESET = "medium_quality"
"""The preset for checkpoints of this size. It differs from the default preset in checkpoints and learning rate."""
AUGMENTATIONS = ["random_swap(0.05)", "random_delete(0.05)", "insert_punc(0.05)"]
"""AutoGluon's augmentations of texts, without synonyms, for which it downloads WordNet."""


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Fit a ``MultiModalPredictor`` with the checkpoint ``work["checkpoint"]``, for ``work["limit"]`` seconds.

    The limit ends the training; AutoGluon then averages the best weights.

    Returns:
        ``right``: whether the prediction is correct for each test example, in the order of the ids. ``seconds``: of the
        whole script.
    """
    start = perf_counter()
    column, kind, read, settings = _images(work) if work["images"] else _texts(work)
    training, test = (read(Path(work["data"]), split) for split in ("train", "test"))
    predictor = MultiModalPredictor(
        label="label",
        eval_metric="accuracy",
        path=str(Path(work["folder"]) / "model"),
        verbosity=0,
        enable_progress_bar=False,
    )
    predictor.fit(
        training[[column, "label"]],
        presets=PRESET,
        time_limit=work["limit"] - (perf_counter() - start),
        hyperparameters={
            # AutoGluon's default of 128 learns next to nothing within a minute on one core
            "env.batch_size": work["batch_size"],
            "env.num_workers": 0,
            "env.num_workers_inference": 0,
            **settings,
        },
        column_types={column: kind, "label": "categorical"},
        seed=work["seed"],
    )
    found = predictor.predict(test[[column]], as_pandas=False)
    right = pandas.Series(found == test["label"].to_numpy(), index=test["id"]).sort_index()
    return {"seconds": perf_counter() - start, "right": [bool(each) for each in right]}


def _images(work: dict[str, Any]) -> tuple[Any, ...]:
    folder = _timm_checkpoint(Path(work["checkpoint"]), Path(work["folder"]) / "checkpoint")
    settings = {"model.names": ["timm_image"], "model.timm_image.checkpoint_name": str(folder)}
    return "image", "image_path", _read_images, settings


def _texts(work: dict[str, Any]) -> tuple[Any, ...]:
    settings = {
        "model.names": ["hf_text"],
        "model.hf_text.checkpoint_name": work["checkpoint"],
        "model.hf_text.pooling_mode": "mean",  # the checkpoint's; AutoGluon's default is the first token
        "model.hf_text.text_train_augment_types": AUGMENTATIONS,
    }
    return "text", "text", _read_texts, settings


def _read_images(data: Path, split: str) -> pandas.DataFrame:
    paths = sorted((data / split).glob("*/*"))
    return pandas.DataFrame(
        {
            "id": [str(path.relative_to(data)) for path in paths],
            "image": [str(path) for path in paths],
            "label": [path.parent.name for path in paths],
        }
    )


def _read_texts(data: Path, split: str) -> pandas.DataFrame:
    table = pandas.read_csv(data / f"{split}.csv", dtype=str, keep_default_na=False)
    return table.assign(id=[f"{split}:{row}" for row in range(len(table))])


def _timm_checkpoint(checkpoint: Path, folder: Path) -> Path:
    """Write a checkpoint of the Hub as AutoGluon saves and loads it: the same weights, without the classifier."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    weights = load_file(checkpoint / "model.safetensors")
    classifier = config["pretrained_cfg"]["classifier"]
    config["num_features"] = weights[f"{classifier}.weight"].shape[1]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    kept = {name: value for name, value in weights.items() if not name.startswith(f"{classifier}.")}
    torch.save(kept, folder / "pytorch_model.bin")
    return folder
