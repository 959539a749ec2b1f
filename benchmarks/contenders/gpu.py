"""ViT-B/16 and BERT-base with random weights: examples per second, compared with the rate of a matrix product."""

from time import perf_counter
from typing import Any

import torch
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from benchmarks.contenders.overhead import StepTimes
from benchmarks.contenders.stage import collate, run_stage
from benchmarks.contenders.stock_texts import freeze_by_name
from benchmarks.watch import peak_bytes

__all__ = ["InMemory", "count_flops", "matrix_rate", "measure"]

CLASSES = 10
DISTINCT = 256  # examples in memory, which are repeated
MODELS = {"vit": (ViTConfig, ViTForImageClassification), "bert": (BertConfig, BertForSequenceClassification)}


class InMemory(Dataset):
    """Random examples for a model, repeated up to a number.

    Args:
        model: Model that takes them.
        count: Number of examples.
        tokens: Tokens of a text.
    """

    def __init__(self, model: Any, count: int, tokens: int):
        generator = torch.Generator().manual_seed(0)
        config, kept = model.config, min(count, DISTINCT)
        if model.main_input_name == "pixel_values":
            shape = (kept, 3, config.image_size, config.image_size)
            self.inputs = {"pixel_values": torch.randn(shape, generator=generator)}
        else:
            ids = torch.randint(1, config.vocab_size, (kept, tokens), generator=generator)
            self.inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.labels = torch.randint(0, CLASSES, (kept,), generator=generator)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = index % len(self.labels)
        return {**{name: values[row] for name, values in self.inputs.items()}, "labels": self.labels[row]}


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Measure the matrix product, and then some steps of all layers or the whole head stage."""
    set_seed(work["seed"])
    device = torch.device(work["device"])
    rate = matrix_rate(work["matrix"], device)
    model = _model(work)
    if work["part"] == "full":
        found = _full(model, work)
        flops = count_flops(_model(work, eager=True), work["tokens"])
        found["flops"] = flops * found["examples_per_second"]
    else:
        found = _head(model, work)
    each = found.pop("examples_per_second")
    text = work["model"] == "bert"
    found["tokens_per_second" if text else "images_per_second"] = each * (work["tokens"] if text else 1)
    gpu = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {**found, "matrix_flops": rate, "gpu_peak_bytes": gpu, "peak_bytes": peak_bytes()}


def matrix_rate(size: int, device: torch.device, repeats: int = 20) -> float:
    """Return the operations per second of a bf16 matrix product, the best of several measurements.

    Args:
        size: Rows and columns of both matrices.
        device: Device to measure.
        repeats: Products per measurement.
    """
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(4):  # the first one also warms up
        _synchronise(device)
        begun = perf_counter()
        for _ in range(repeats):
            one @ other
        _synchronise(device)
        best = min(best, perf_counter() - begun)
    return 2 * size**3 * repeats / best


def count_flops(model: Any, tokens: int) -> float:
    """Return the operations of matrix products and convolutions for an example, forward and backward.

    Args:
        model: Model on the CPU, with eager attention, whose products the counter counts on any device.
        tokens: Tokens of a text.
    """
    examples = InMemory(model, 2, tokens)
    with FlopCounterMode(display=False) as counter:
        model(**collate([examples[0], examples[1]])).loss.backward()
    return counter.get_total_flops() / 2


def _model(work: dict[str, Any], *, eager: bool = False) -> Any:
    config_class, model_class = MODELS[work["model"]]
    config = config_class(num_labels=CLASSES, **work["config"])
    if eager:
        config._attn_implementation = "eager"
    return model_class(config)


def _full(model: Any, work: dict[str, Any]) -> dict[str, Any]:
    examples = InMemory(model, work["steps"] * work["batch_size"], work["tokens"])
    times = StepTimes(work["warmup_steps"], work["steps"], synchronise=work["device"] == "cuda")
    _train(model, examples, work, "all", 1, work["full_lr"], work["speed"], times)
    result = times.result()
    if times.synchronise:
        del result["step_median"]  # the GPU is synchronized only at the first and the last step
    return {**result, "examples_per_second": work["batch_size"] / result["step_seconds"]}


def _head(model: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Time the whole stage, including filling the cache."""
    examples = InMemory(model, work["head_examples"], work["tokens"])
    epochs = work["head_epochs"]
    begun = perf_counter()
    _train(model, examples, work, "head", epochs, work["head_lr"], work["head_speed"])
    seconds = perf_counter() - begun
    return {"seconds": seconds, "examples_per_second": epochs * len(examples) / seconds}


def _train(
    model: Any,
    examples: InMemory,
    work: dict[str, Any],
    trained: str,
    epochs: int,
    lr: float,
    speed: dict[str, Any],
    times: StepTimes | None = None,
) -> None:
    callbacks = [times] if times is not None else []
    if work["loop"] == "staged":
        stage = {"train": trained, "epochs": epochs, "lr": lr, "batch_size": work["batch_size"]}
        run_stage(
            model,
            examples,
            stage,
            folder=work["folder"],
            speed=speed,
            workers=work["workers"],
            seed=work["seed"],
            callbacks=callbacks,
        )
        return
    freeze_by_name(model, trained)
    arguments = TrainingArguments(
        work["folder"],
        num_train_epochs=epochs,
        learning_rate=lr,
        per_device_train_batch_size=work["batch_size"],
        bf16=True,
        use_cpu=work["device"] == "cpu",
        save_strategy="no",
        remove_unused_columns=False,
        dataloader_num_workers=work["workers"],
        report_to="none",
        disable_tqdm=True,
        seed=work["seed"],
    )
    Trainer(
        model=model, args=arguments, train_dataset=examples, data_collator=collate, callbacks=callbacks
    ).train()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
