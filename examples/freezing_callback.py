"""FreezingCallback with a stock Trainer: the head in the first epoch, all layers in the second.

make assets
.venv/bin/python examples/freezing_callback.py --examples 96
"""

import argparse
from typing import Any

from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

from hf_finetune import FreezingCallback

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--examples", type=int, default=679, help="number of training examples (of 679)")
parser.add_argument("--output-dir", default="runs/freezing-callback", help="output directory of the Trainer")
options = parser.parse_args()

folder = "examples/data/dishes"
data = load_dataset("parquet", data_files={name: f"{folder}/{name}.parquet" for name in ("train", "test")})
data["train"] = data["train"].shuffle(seed=0).select(range(options.examples))
names = data["train"].features["label"].names

checkpoint = "assets/efficientnet-lite0"
processor = AutoImageProcessor.from_pretrained(checkpoint)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint,
    num_labels=len(names),
    id2label=dict(enumerate(names)),
    label2id={name: index for index, name in enumerate(names)},
    ignore_mismatched_sizes=True,
)


def prepare(batch: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the model inputs of a batch of images."""
    return {"labels": batch["label"], **processor(batch["image"], return_tensors="pt")}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        options.output_dir,
        num_train_epochs=2,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="epoch",
    ),
    train_dataset=data["train"].with_transform(prepare),
    eval_dataset=data["test"].with_transform(prepare),
    compute_metrics=lambda result: {"accuracy": (result.predictions.argmax(-1) == result.label_ids).mean()},
    callbacks=[FreezingCallback({0: "head", 1: "all"})],
)
trainer.train()
print(trainer.evaluate())
