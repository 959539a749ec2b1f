"""Images with fastai: ``fine_tune`` on timm's model, with fastai's own head, augmentation and schedule."""

from collections.abc import Mapping
from typing import Any

import torch
from datasets import Image, load_dataset
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    default_split,
    params,
    set_seed,
)
from fastai.vision.learner import create_timm_model
from safetensors.torch import load_file
from transformers import AutoConfig

from benchmarks.watch import Watch

__all__ = ["measure"]


class WatchCallback(Callback):
    """Record each evaluation. It runs after the Recorder, which collects the metrics."""

    order = 70

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def after_epoch(self) -> None:
        """Record the accuracy."""
        self.watch.evaluated(float(self.learn.recorder.values[-1][-1]))


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Train as ``fine_tune`` does: one cycle with a frozen body, then one of all layers."""
    set_seed(work["seed"], reproducible=True)
    watch = Watch()
    config = AutoConfig.from_pretrained(work["checkpoint"])
    loaders, classes = _loaders(work, config.pretrained_cfg)
    model, _ = create_timm_model(config.architecture, classes, pretrained=False)
    weights = load_file(f"{work['checkpoint']}/model.safetensors")
    found = model[0].model.load_state_dict(
        {name.removeprefix("timm_model."): value for name, value in weights.items()}, strict=False
    )
    if found.missing_keys:
        raise ValueError(f"The checkpoint must hold every weight of the body. It lacks {found.missing_keys}.")
    learner = Learner(
        loaders,
        model,
        splitter=default_split,
        metrics=accuracy,
        path=work["folder"],
        cbs=[WatchCallback(watch)],
    )
    watch.start()
    with learner.no_bar(), learner.no_logging():
        if len(work["epochs"]) > 1:
            learner.fine_tune(work["epochs"][1], base_lr=work["lr"], freeze_epochs=work["epochs"][0])
        else:  # the first half of fine_tune, with its arguments
            learner.freeze()
            learner.fit_one_cycle(work["epochs"][0], slice(work["lr"]), pct_start=0.99)
    watch.stop()
    return {**watch.result(), "trained": [sum(each.numel() for each in params(model) if each.requires_grad)]}


def _loaders(work: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the data loaders, from image files in memory, and the number of classes."""
    files = {name: f"{work['data']}/{name}.parquet" for name in ("train", "validation")}
    data = load_dataset("parquet", data_files=files).cast_column("image", Image(decode=False))
    names = data["train"].features["label"].names
    rows = [row for split in ("train", "validation") for row in data[split]]
    size, held_out = work["image_size"], range(len(data["train"]), len(rows))
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=names, sort=False)),
        get_x=lambda index: rows[index]["image"]["bytes"],
        get_y=lambda index: names[rows[index]["label"]],
        splitter=IndexSplitter(list(held_out)),
        item_tfms=Resize(size),
        batch_tfms=[
            *aug_transforms(size=size, min_scale=0.75),
            Normalize.from_stats(cfg["mean"], cfg["std"]),
        ],
    )
    device = torch.device("cuda" if work["device"] == "cuda" else "cpu")
    loaders = block.dataloaders(range(len(rows)), bs=work["batch_size"], num_workers=0, device=device)
    return loaders, len(names)
