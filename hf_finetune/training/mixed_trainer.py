"""Trainer of a stage that trains several tasks at once."""

from typing import Any

import torch

from hf_finetune.training.trainer import StagedTrainer

__all__ = ["MixedTrainer"]


class MixedTrainer(StagedTrainer):
    """``StagedTrainer`` that normalizes the loss by examples, however many columns a label has."""

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Count the examples of an optimizer step over all micro-batches and processes, without padding examples."""
        if not batch_samples:
            return None
        labels = [batch["labels"] for batch in batch_samples]
        here = torch.stack([(~batch_labels.isnan()).any(dim=-1).sum() for batch_labels in labels]).sum()
        return self.accelerator.gather(here.to(device)).sum()
