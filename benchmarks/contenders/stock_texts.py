"""Texts with stock transformers: a script that trains first the head and then all layers."""

from typing import Any

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    default_data_collator,
    set_seed,
)

from benchmarks.contenders.stock_phases import train_phases
from benchmarks.watch import Watch

__all__ = ["freeze_by_name", "measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Train the phases in turn, each with its own Trainer. The texts are tokenized before the clock starts."""
    set_seed(work["seed"])
    watch = Watch()
    files = {name: f"{work['data']}/{name}.csv" for name in ("train", "validation")}
    data = load_dataset("csv", data_files=files)
    names = sorted(set(data["train"]["label"]))
    tokenizer = AutoTokenizer.from_pretrained(work["checkpoint"])
    padding = "max_length" if work["pad"] == "max_length" else False

    def tokenize(batch: Any) -> Any:
        encoded = tokenizer(batch["text"], truncation=True, max_length=work["max_length"], padding=padding)
        encoded["labels"] = [names.index(label) for label in batch["label"]]
        return encoded

    data = data.map(tokenize, batched=True, remove_columns=["text", "label"])
    model = AutoModelForSequenceClassification.from_pretrained(work["checkpoint"], num_labels=len(names))
    watch.start()
    together = DataCollatorWithPadding(tokenizer) if not padding else default_data_collator
    trained = train_phases(model, work, (data["train"], data["validation"]), together, freeze_by_name, watch)
    return {**watch.result(), "trained": trained}


def freeze_by_name(model: Any, trained: str) -> None:
    """Freeze all parameters that are not trained: ``head`` or ``all``."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained == "all" or name.startswith("classifier")
