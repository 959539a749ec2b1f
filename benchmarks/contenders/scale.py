"""Head stage with the prefix cache, on many examples: time per example, and memory."""

from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import Any

import torch
from datasets import load_dataset
from torch.utils.data import Dataset
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification, TrainerCallback, set_seed

from benchmarks.contenders.stage import run_stage
from benchmarks.watch import peak_bytes
from hf_finetune.distributed import start_processes

__all__ = ["Repeated", "measure"]


class Repeated(Dataset):
    """Images that are repeated up to a number of examples.

    Args:
        pictures: Bytes [images, 3, height, width].
        labels: Label of each image.
        count: Number of examples.
    """

    def __init__(self, pictures: torch.Tensor, labels: torch.Tensor, count: int):
        self.pictures, self.labels, self.count = pictures, labels, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = index % len(self.labels)
        return {"pixel_values": self.pictures[row] / 127.5 - 1, "labels": self.labels[row]}


class EpochTimes(TrainerCallback):
    """Recorder of the duration of each epoch, without saving."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begun = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the start."""
        self.begun = perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the duration."""
        self.seconds.append(perf_counter() - self.begun)


def measure(work: dict[str, Any]) -> dict[str, Any] | None:
    """Train the head; of several processes, process 0 returns the result."""
    state = start_processes()
    set_seed(work["seed"])
    examples = _examples(work)
    model = AutoModelForImageClassification.from_pretrained(
        work["checkpoint"], num_labels=int(examples.labels.max()) + 1, ignore_mismatched_sizes=True
    )
    times = EpochTimes()
    stage = {"train": "head", "epochs": work["epochs"], "lr": work["lr"], "batch_size": work["batch_size"]}
    speed = {"prefix_cache": {"views": 1} if work["cached"] else None}
    begun = perf_counter()
    done = run_stage(
        model,
        examples,
        stage,
        folder=work["folder"],
        speed=speed,
        seed=work["seed"],
        callbacks=[times],
    )
    seconds = perf_counter() - begun
    if work["cached"] and (done.cache is None or not done.cache.used):
        raise RuntimeError(f"The prefix was not cached: {done.cache.reason if done.cache else 'unknown'}.")
    if not state.is_main_process:
        return None
    later = times.seconds[1:] or times.seconds
    return {
        "cached": work["cached"],
        "total_seconds": seconds,
        "example_seconds": median(later) / len(examples),
        "epoch_seconds": times.seconds,
        "cache_bytes": done.cache.bytes if done.cache else None,
        "peak_bytes": peak_bytes(),
    }


def _examples(work: Mapping[str, Any]) -> Repeated:
    data = load_dataset("parquet", data_files={"train": f"{work['data']}/train.parquet"})["train"]
    size = work["image_size"]
    shrink = v2.Compose([v2.Resize([size, size]), v2.PILToTensor()])
    pictures = torch.stack([shrink(image.convert("RGB")) for image in data["image"]])
    return Repeated(pictures, torch.tensor(data["label"]), work["examples"])
