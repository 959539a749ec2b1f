"""Cost of the training loop around the same kernels: a bare loop, the stock Trainer, and a stage."""

from itertools import pairwise
from statistics import mean, median
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    AutoModelForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_scheduler,
    set_seed,
)

from benchmarks.contenders.stage import collate, run_stage
from benchmarks.watch import peak_bytes
from hf_finetune.performance.allocator import keep_freed_memory

__all__ = ["StepTimes", "measure"]

CLASSES = 81
WEIGHT_DECAY = 0.01


class StepTimes(TrainerCallback):
    """Recorder of the end of each step.

    Args:
        warmup_steps: Number of first steps that are not timed.
        synchronise: Whether to wait for the GPU at the first and the last step.
        steps: Number of steps.
    """

    def __init__(self, warmup_steps: int, steps: int, *, synchronise: bool = False):
        self.warmup_steps, self.steps, self.synchronise = warmup_steps, steps, synchronise
        self.times: list[float] = []

    def note(self) -> None:
        """Record the end of a step."""
        if self.synchronise and len(self.times) + 1 in (self.warmup_steps, self.steps):
            torch.cuda.synchronize()
        self.times.append(perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the end of a step."""
        self.note()

    def result(self) -> dict[str, Any]:
        """Return the mean and the median seconds of a step, from the end of one step to the end of the next."""
        counted = self.times[self.warmup_steps - 1 :]
        steps = [later - earlier for earlier, later in pairwise(counted)]
        return {"step_seconds": mean(steps), "step_median": median(steps), "peak_bytes": peak_bytes()}


class Pictures(TensorDataset):
    """Random images and labels, as inputs of a model of transformers.

    Args:
        count: Number of images.
        size: Pixels on each side.
    """

    def __init__(self, count: int, size: int):
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randn(count, 3, size, size, generator=generator)
        super().__init__(pictures, torch.randint(0, CLASSES, (count,), generator=generator))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:  # type: ignore[override]
        pixel_values, labels = super().__getitem__(index)
        return {"pixel_values": pixel_values, "labels": labels}


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Train some steps on random images."""
    set_seed(work["seed"])
    model = AutoModelForImageClassification.from_pretrained(
        work["checkpoint"], num_labels=CLASSES, ignore_mismatched_sizes=True
    )
    pictures = Pictures(work["steps"] * work["batch_size"], work["image_size"])
    times = StepTimes(work["warmup_steps"], work["steps"])
    with keep_freed_memory(work["keeps_memory"]):
        {"bare": _bare, "stock": _stock, "staged": _staged}[work["loop"]](model, pictures, work, times)
    return times.result()


def _bare(model: Any, pictures: Pictures, work: dict[str, Any], times: StepTimes) -> None:
    model.to(memory_format=getattr(torch, work["memory_format"])).train()
    flat = [each for each in model.parameters() if each.ndim < 2]
    rest = [each for each in model.parameters() if each.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": rest, "weight_decay": WEIGHT_DECAY}, {"params": flat, "weight_decay": 0.0}],
        lr=work["lr"],
    )
    schedule = get_scheduler("linear", optimizer, 0, work["steps"])
    for batch in DataLoader(pictures, work["batch_size"], shuffle=True, collate_fn=collate):
        loss = functional.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        times.note()


def _stock(model: Any, pictures: Pictures, work: dict[str, Any], times: StepTimes) -> None:
    model.to(memory_format=getattr(torch, work["memory_format"]))
    arguments = TrainingArguments(
        work["folder"],
        num_train_epochs=1,
        learning_rate=work["lr"],
        weight_decay=WEIGHT_DECAY,
        optim="adamw_torch",
        per_device_train_batch_size=work["batch_size"],
        use_cpu=work["device"] == "cpu",
        save_strategy="no",
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=work["seed"],
    )
    Trainer(
        model=model, args=arguments, train_dataset=pictures, data_collator=collate, callbacks=[times]
    ).train()


def _staged(model: Any, pictures: Pictures, work: dict[str, Any], times: StepTimes) -> None:
    run_stage(
        model,
        pictures,
        {
            "train": "all",
            "epochs": 1,
            "lr": work["lr"],
            "weight_decay": WEIGHT_DECAY,
            "batch_size": work["batch_size"],
        },
        folder=work["folder"],
        speed={"memory_format": work["memory_format"], "prefix_cache": None},
        seed=work["seed"],
        callbacks=[times],
    )
