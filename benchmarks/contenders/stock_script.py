"""A script with two stock Trainers for any images or texts: first the head, then all layers, within a time."""

from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import torch
from datasets import ClassLabel, DatasetDict, Image, load_dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.contenders.stock_images import build_transforms, collate, freeze, load_model, transform_with
from benchmarks.contenders.stock_texts import freeze_by_name
from benchmarks.contenders.trainer_watch import accuracy

__all__ = ["measure"]

VALIDATION = 0.15
MAX_LENGTH = 256  # tokens
TIMED_STEPS = 3
RESERVED = 1.2  # factor on the measured duration of an epoch, for its evaluation


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Train ``work["epochs"]`` with the learning rates ``work["rates"]``, head and then all layers.

    The second phase has fewer epochs where ``work["limit"]`` seconds are too short for all, and ends at the limit. The
    weights of the epoch with the best validation accuracy are kept.

    Returns:
        ``right``: whether the prediction is correct for each test example, in the order of the ids. ``seconds``: of the
        whole script.
    """
    datasets.disable_progress_bars()
    start = perf_counter()
    set_seed(work["seed"])
    build = _images if work["images"] else _texts
    model, data, collate_batch, freeze_all_but, ids = build(work)
    deadline = start + work["limit"]
    for number, (epochs, lr) in enumerate(zip(work["epochs"], work["rates"], strict=True)):
        freeze_all_but(model, "head" if number == 0 else "all")
        if number == 1:
            step = _seconds_per_step(model, data["train"], collate_batch, work["batch_size"])
            epoch = RESERVED * step * len(data["train"]) / work["batch_size"]
            epochs = max(1, min(epochs, int((deadline - perf_counter()) / epoch)))
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                f"{work['folder']}/{number}",
                num_train_epochs=epochs,
                learning_rate=lr,
                warmup_steps=0.1,
                per_device_train_batch_size=work["batch_size"],
                per_device_eval_batch_size=64,
                eval_strategy="epoch",
                save_strategy="epoch",
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                save_total_limit=1,
                use_cpu=True,
                dataloader_num_workers=0,
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=not work["images"],
                seed=work["seed"],
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=collate_batch,
            compute_metrics=accuracy,
            callbacks=[_DeadlineCallback(deadline)],
        )
        trainer.train()
    found = trainer.predict(data["test"])
    right = found.predictions.argmax(-1) == found.label_ids
    ordered = sorted(range(len(ids)), key=lambda index: ids[index])
    return {"seconds": perf_counter() - start, "right": right[ordered].tolist()}


class _DeadlineCallback(TrainerCallback):
    """End the training at a time, with an evaluation."""

    def __init__(self, deadline: float):
        self.deadline = deadline

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the time."""
        if perf_counter() > self.deadline:
            control.should_evaluate = control.should_save = control.should_training_stop = True


def _seconds_per_step(model: Any, data: Any, collate_batch: Any, batch_size: int) -> float:
    """Time forward and backward passes, which change no weights."""
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    start = perf_counter()
    for number in range(TIMED_STEPS):
        rows = [(number * batch_size + index) % len(data) for index in range(batch_size)]
        model(**collate_batch([data[row] for row in rows])).loss.backward()
    model.zero_grad()
    seconds = (perf_counter() - start) / TIMED_STEPS
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(statistics[name])
    return seconds


def _images(work: dict[str, Any]) -> tuple[Any, ...]:
    data = load_dataset("imagefolder", data_dir=work["data"])
    names = data["train"].features["label"].names
    paths = data["test"].cast_column("image", Image(decode=False))["image"]
    ids = [str(Path(image["path"]).relative_to(work["data"])) for image in paths]
    config = AutoConfig.from_pretrained(work["checkpoint"]).pretrained_cfg
    augmented, plain = build_transforms({**work, "image_size": config["input_size"][-1]})
    divided = _with_validation(data, work["seed"])
    data = DatasetDict(
        train=divided["train"].with_transform(transform_with(augmented)),
        validation=divided["validation"].with_transform(transform_with(plain)),
        test=divided["test"].with_transform(transform_with(plain)),
    )
    return load_model(work, names), data, collate, freeze, ids


def _texts(work: dict[str, Any]) -> tuple[Any, ...]:
    data = load_dataset(
        "csv", data_files={split: f"{work['data']}/{split}.csv" for split in ("train", "test")}
    )
    names = sorted(set(data["train"]["label"]))
    tokenizer = AutoTokenizer.from_pretrained(work["checkpoint"])

    def tokenize(batch: Any) -> Any:
        return tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH)

    ids = [f"test:{row}" for row in range(len(data["test"]))]
    data = data.cast_column("label", ClassLabel(names=names))
    data = _with_validation(data, work["seed"]).map(tokenize, batched=True, remove_columns=["id", "text"])
    model = AutoModelForSequenceClassification.from_pretrained(work["checkpoint"], num_labels=len(names))
    return model, data, DataCollatorWithPadding(tokenizer), freeze_by_name, ids


def _with_validation(data: DatasetDict, seed: int) -> DatasetDict:
    divided = data["train"].train_test_split(VALIDATION, stratify_by_column="label", seed=seed)
    return DatasetDict(train=divided["train"], validation=divided["test"], test=data["test"])
