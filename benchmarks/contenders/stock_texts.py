"""Texts with stock transformers: what a person writes who trains the head first and then everything."""

from typing import Any

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from benchmarks.contenders.trainer_watch import WatchCallback, accuracy
from benchmarks.watch import Watch

__all__ = ["measure"]


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
    trained = []
    for number, stage in enumerate(work["stages"]):
        for name, parameter in model.named_parameters():
            parameter.requires_grad = stage["trained"] == "all" or name.startswith("classifier")
        trained.append(sum(each.numel() for each in model.parameters() if each.requires_grad))
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                f"{work['folder']}/{number}",
                num_train_epochs=stage["epochs"],
                learning_rate=stage["lr"],
                per_device_train_batch_size=work["batch_size"],
                per_device_eval_batch_size=64,
                eval_strategy="epoch",
                save_strategy="epoch",
                use_cpu=work["device"] == "cpu",
                dataloader_num_workers=0,
                report_to="none",
                disable_tqdm=True,
                seed=work["seed"],
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer) if not padding else default_data_collator,
            compute_metrics=accuracy,
            callbacks=[WatchCallback(watch)],
        )
        trainer.train()
    return {**watch.result(), "trained": trained}
