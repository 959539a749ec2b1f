"""Common part of the stock scripts: one Trainer after the other on the same model."""

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
    """Train the phases in turn, each with its own Trainer.

    Args:
        model: Model, which is trained in place.
        work: Settings of the contender.
        data: Training and evaluation examples.
        collate: Collate function.
        freeze: Function that freezes all parameters that a phase does not train.
        watch: Recorder of times and accuracies.
        options: Further fields of ``TrainingArguments``.

    Returns:
        Number of trained parameters of each phase.
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
