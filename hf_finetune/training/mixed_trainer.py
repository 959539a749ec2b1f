"""The Trainer of a stage that trains several tasks at once."""

from typing import Any

import torch

from hf_finetune.training.trainer import StagedTrainer

__all__ = ["MixedTrainer"]


class MixedTrainer(StagedTrainer):
    """A ``StagedTrainer`` whose steps are counted in examples, however many numbers a label is made of."""

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Count the examples of an optimiser step, over all forward passes and processes; fillers do not count."""
        if not batch_samples:
            return None
        labels = [batch["labels"] for batch in batch_samples]
        here = torch.stack([(~each.isnan()).any(dim=-1).sum() for each in labels]).sum()
        return self.accelerator.gather(here.to(device)).sum()
