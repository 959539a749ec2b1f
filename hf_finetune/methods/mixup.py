"""Mix the images of a batch with each other, and their labels alike: mixup and cutmix."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn import functional
from torchvision.transforms import v2

from hf_finetune.data.seeded_augmentation import seed_of
from hf_finetune.targets.losses import valid_labels

__all__ = ["BatchMixer", "label_shares"]


def label_shares(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Give labels as the share of each class [batch, classes]; those that do not count become nan.

    Args:
        labels: Classes [batch], or members [batch, classes] of multi-label data.
        classes: Number of classes.
    """
    if labels.ndim > 1:
        return labels.float()
    shares = functional.one_hot(labels.clamp(min=0), classes).float()
    return shares.masked_fill(~valid_labels(labels).unsqueeze(1), torch.nan)


class BatchMixer:
    """Mix each image with the one before it in its batch; of two methods, one is drawn for each batch.

    What is drawn depends on the stage's seed, the optimizer step, the batch within it and the process, so that a
    resume and any number of workers give the same. Images are mixed within the batch of a process. The model never
    sees labels: it would take shares for several labels per example.

    Args:
        mixup: Parameter of the Beta distribution of the share in which two images are blended; 0 = not.
        cutmix: Parameter of that of the share of an image that another one covers; 0 = not.
        classes: Number of classes.
        seed: Of the stage.
    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization; Yun et al. 2019, CutMix. Both are
        torchvision's, which mixes neighbours in a shuffled batch, and draws between the two as its references do.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int, seed: int):
        self.classes, self.seed = classes, seed
        self.methods: list[Any] = [v2.MixUp(alpha=mixup)] if mixup else []
        self.methods += [v2.CutMix(alpha=cutmix)] if cutmix else []

    def over(self, batches: Iterable[dict[str, Any]], step: int, process: int) -> Iterator[dict[str, Any]]:
        """Mix the batches of an optimizer step as they are asked for.

        Args:
            batches: With ``pixel_values`` and ``labels``.
            step: Number of steps before this one.
            process: Of which the batches are.
        """
        for index, batch in enumerate(batches):
            yield self.mix(batch, seed_of(self.seed, step, index, process))

    def mix(self, batch: dict[str, Any], seed: int) -> dict[str, Any]:
        """Give a batch with mixed images, and with labels that are shares of the classes [batch, classes]."""
        shares = label_shares(batch["labels"], self.classes)
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)  # torchvision draws from it, on the CPU
        try:
            method = self.methods[int(torch.randint(len(self.methods), ()))]
            images, shares = method(batch["pixel_values"], shares)
        finally:
            torch.set_rng_state(before)
        return {**batch, "pixel_values": images, "labels": shares}
