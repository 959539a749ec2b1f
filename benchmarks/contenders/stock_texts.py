"""Texts with stock transformers: what a person writes who trains the head first and then everything."""

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
    """Train phase after phase, each with a Trainer of its own. The texts are tokenised before the time begins."""
    set_seed(work["seed"])
    watch = Watch()
    files = {name: f"{work['data']}/{name}.csv" for name in ("train", "validation")}
    data = load_dataset("csv", data_files=files)
    names = sorted(set(data["train"]["label"]))
    tokenizer = AutoTokenizer.from_pretrained(work["checkpoint"])
    padding = "max_length" if work["pad"] == "max_length" else False

    def tokenise(batch: Any) -> Any:
        encoded = tokenizer(batch["text"], truncation=True, max_length=work["max_length"], padding=padding)
        encoded["labels"] = [names.index(label) for label in batch["label"]]
        return encoded

    data = data.map(tokenise, batched=True, remove_columns=["text", "label"])
    model = AutoModelForSequenceClassification.from_pretrained(work["checkpoint"], num_labels=len(names))
    watch.start()
    together = DataCollatorWithPadding(tokenizer) if not padding else default_data_collator
    trained = train_phases(model, work, (data["train"], data["validation"]), together, freeze_by_name, watch)
    return {**watch.result(), "trained": trained}


def freeze_by_name(model: Any, trained: str) -> None:
    """Freeze all but what is trained: ``head`` or ``all``."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained == "all" or name.startswith("classifier")
