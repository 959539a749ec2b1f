"""Mixup and CutMix: mix the images of a batch with each other, and their labels in the same proportion."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn import functional
from torchvision.transforms import v2

from hf_finetune.methods.base import Method, StageContext
from hf_finetune.recipe.method_rules import MIXUP
from hf_finetune.targets.losses import valid_labels
from hf_finetune.tasks import find_modality
from hf_finetune.tasks.seeded_augmentation import derive_seed

__all__ = ["BatchMixer", "label_probabilities"]


def label_probabilities(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return labels as class probabilities [batch, classes]; ignored labels become nan.

    Args:
        labels: Class indices [batch], or zeros and ones [batch, classes] (multi-label).
        classes: Number of classes.
    """
    if labels.ndim > 1:
        return labels.float()
    probabilities = functional.one_hot(labels.clamp(min=0), classes).float()
    return probabilities.masked_fill(~valid_labels(labels).unsqueeze(1), torch.nan)


class BatchMixer(Method):
    """Mix each image with the previous one in its micro-batch, by mixup or CutMix; with both, one per batch at random.

    The random numbers depend on the stage's seed, the optimizer step, the micro-batch and the process only, so they are
    the same after a resume and with any number of workers. Labels are not passed to the model: it would interpret class
    probabilities as multi-label data.

    Args:
        mixup: Parameter of the Beta distribution of the mixing ratio of two images; 0 disables mixup.
        cutmix: Parameter of the Beta distribution of the fraction of an image that is not replaced by the other image;
            0 disables CutMix.
        classes: Number of classes.
        seed: Seed of the stage.

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization; Yun et al. 2019, CutMix. Both are
        torchvision's, which mixes neighbors in a shuffled batch; one is selected as in its reference scripts.
    """

    rules = MIXUP

    def __init__(self, mixup: float, cutmix: float, classes: int, seed: int):
        self.classes = classes
        self.seed = seed
        self.methods: list[Any] = [v2.MixUp(alpha=mixup)] if mixup else []
        self.methods += [v2.CutMix(alpha=cutmix)] if cutmix else []

    @classmethod
    def build(cls, context: StageContext) -> "BatchMixer | None":
        """Return the mixer if the stage sets ``mixup`` or ``cutmix``, or None."""
        spec = context.stage.spec.regularize
        if not spec.uses_batch_mixing:
            return None
        return cls(spec.mixup, spec.cutmix, context.model.config.num_labels, context.stage.seed)

    def on_batches(
        self, batches: Iterable[dict[str, Any]], step: int, process: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the mixed micro-batches; called for each optimizer step.

        Args:
            batches: Iterator over the remaining micro-batches of the epoch: images with ``labels``.
            step: Number of optimizer steps before this one.
            process: Index of the process.
        """
        for index, batch in enumerate(batches):
            yield self.mix(batch, derive_seed(self.seed, step, index, process))

    def mix(self, batch: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return a batch with mixed images, and with class probabilities [batch, classes] as labels.

        Args:
            batch: Images [batch, channels, height, width] and ``labels`` [batch].
            seed: Random seed.
        """
        name = find_modality(batch).main_input_in(batch)
        labels = label_probabilities(batch["labels"], self.classes)
        rng_state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)  # used by torchvision
        try:
            method = self.methods[int(torch.randint(len(self.methods), ()))]
            images, labels = method(batch[name], labels)
        finally:
            torch.set_rng_state(rng_state)
        return {**batch, name: images, "labels": labels}
