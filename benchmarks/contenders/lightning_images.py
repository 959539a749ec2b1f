"""Images with Lightning, in phases with finetuning-scheduler."""

from typing import Any

import lightning
import torch
from finetuning_scheduler import FinetuningScheduler
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.contenders.stock_images import collate, load_dishes, load_model
from benchmarks.watch import Watch

__all__ = ["measure"]


class Classifier(lightning.LightningModule):
    """Model of transformers, trained by Lightning.

    Args:
        model: Model that returns logits.
        lr: Peak learning rate of the first phase.
        watch: Recorder of the accuracy after each epoch.
    """

    def __init__(self, model: Any, lr: float, watch: Watch):
        super().__init__()
        self.model = model
        self.lr = lr
        self.watch = watch
        self.right = self.seen = 0

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return functional.cross_entropy(self.model(batch["pixel_values"]).logits, batch["labels"])

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        """Count the correct predictions of a batch."""
        logits = self.model(batch["pixel_values"]).logits
        self.right += int((logits.argmax(-1) == batch["labels"]).sum())
        self.seen += len(logits)
        self.log("val_loss", functional.cross_entropy(logits, batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Record the accuracy."""
        self.watch.evaluated(self.right / self.seen)
        self.right = self.seen = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW with a constant learning rate; the scheduler adds the parameters of later phases."""
        return torch.optim.AdamW(self.model.parameters(), lr=self.lr)


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Train the phases in the same epochs as the stock script."""
    lightning.seed_everything(work["seed"])
    watch = Watch()
    data = load_dishes(work)
    model = load_model(work, data["train"].features["label"].names).train()
    module = Classifier(model, work["stages"][0]["lr"], watch)
    loaders = [
        DataLoader(data[split], size, shuffle=split == "train", collate_fn=collate, num_workers=0)
        for split, size in (("train", work["batch_size"]), ("validation", 64))
    ]
    watch.start()
    phases = FinetuningScheduler(
        ft_schedule=_schedule(module, work["stages"]),
        epoch_transitions_only=True,
        restore_best=False,  # the last epoch counts for all contenders
    )
    trainer = lightning.Trainer(
        max_epochs=sum(stage["epochs"] for stage in work["stages"]),
        accelerator="gpu" if work["device"] == "cuda" else "cpu",
        devices=1,
        default_root_dir=work["folder"],
        callbacks=[phases],
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, *loaders)
    watch.stop()
    return watch.result()


def _schedule(module: Classifier, stages: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the parameters that each phase adds, and the epoch at which the next one starts."""
    head = {id(each) for each in module.model.timm_model.get_classifier().parameters()}
    named = list(module.named_parameters())
    names = [
        [name for name, each in named if id(each) in head],
        [name for name, each in named if id(each) not in head],
    ]
    schedule: dict[int, dict[str, Any]] = {}
    epoch = 0
    for number, (stage, added) in enumerate(zip(stages, names, strict=False)):
        epoch += stage["epochs"]
        schedule[number] = {"params": added, "max_transition_epoch": epoch}
        if number:
            schedule[number]["lr"] = stage["lr"]
    return schedule
