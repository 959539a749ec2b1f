"""What the stock scripts have in common: one Trainer after the other on the same model."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer, TrainingArguments

from benchmarks.contenders.trainer_watch import WatchCallback, accuracy
from benchmarks.watch import Watch

__all__ = ["train_phases"]


def train_phases(
    model: Any,
    work: Mapping[str, Any],
    data: tuple[Any, Any],
    collate: Callable[..., Any],
    freeze: Callable[[Any, Any], None],
    watch: Watch,
    **options: Any,
) -> list[int]:
    """Train phase after phase, each with a Trainer of its own.

    Args:
        model: It is changed in place.
        work: What the contender is told.
        data: To train with, and to evaluate with.
        collate: Makes a batch.
        freeze: Freezes all of a model but what a phase trains.
        watch: Notes when what was reached.
        options: Further fields of ``TrainingArguments``.

    Returns:
        Number of the parameters that each phase trains.
    """
    trained = []
    for number, stage in enumerate(work["stages"]):
        freeze(model, stage["trained"])
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
                **options,
            ),
            train_dataset=data[0],
            eval_dataset=data[1],
            data_collator=collate,
            compute_metrics=accuracy,
            callbacks=[WatchCallback(watch)],
        )
        trainer.train()
    return trained
