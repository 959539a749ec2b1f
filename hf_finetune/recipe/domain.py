"""Recipe fields for domain adaptation to a target domain with unlabeled inputs."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Location, Texts

__all__ = ["ALIGNMENTS", "DomainSpec"]

ALIGNMENTS = {
    "coral": "the covariances of the head's inputs were aligned (Deep CORAL)",
    "dann": "the features were trained against a domain classifier (domain-adversarial training)",
}
"""Description of each method of alignment, for the report of a run."""


class DomainSpec(Part):
    """Domain adaptation: unlabeled inputs of the target domain, and the method. Other fields apply to some methods."""

    target: Location = Field(
        description="Unlabeled inputs of the target domain, in any form that data.path accepts, or a folder of "
        "images; labels are not read."
    )
    method: Literal["continue_pretraining", "coral", "dann"] = Field(
        description="Method of domain adaptation: continue_pretraining = before the first stage, all layers below "
        "the head are trained to predict masked parts of the inputs: tokens (Devlin et al. 2019; "
        "Gururangan et al. 2020), or image patches, by one linear layer (SimMIM, Xie et al. 2022); "
        "coral = adds the distance between the covariances of the head's input in both domains to the "
        "loss of a stage (Deep CORAL, Sun & Saenko 2016); dann = a small classifier learns to "
        "distinguish the domains by the head's input, and its reversed gradient trains the backbone "
        "to make that impossible (Ganin et al. 2016). Experimental."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="For coral and dann: factor on the term that is added to the loss.",
    )
    stages: Texts = Field(
        default=(),
        description="For coral and dann: names of the stages that use it; [] = all stages that train layers below "
        "the head.",
    )
    epochs: float | None = Field(
        default=None,
        gt=0,
        description="For continue_pretraining: duration in passes over the inputs; null = 1, unless max_steps is "
        "given.",
    )
    max_steps: Count | None = Field(
        default=None, description="For continue_pretraining: duration in optimizer steps; null = by epochs."
    )
    lr: float = Field(
        default=5e-5,
        gt=0,
        description="For continue_pretraining: peak learning rate per optimizer step, which is reached after 6 % "
        "of the steps and then falls linearly.",
    )
    batch_size: Count = Field(
        default=32,
        description="For continue_pretraining: number of examples per process and forward pass.",
    )
    mask: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="For continue_pretraining: fraction of the tokens or of the image that is masked; null = 0.15 "
        "of the tokens, 0.6 of the image.",
    )
    source: bool = Field(
        default=False,
        description="For continue_pretraining: whether the inputs of the training split are used in addition to "
        "those of the target domain.",
    )
