"""Recipe fields for domain adaptation to a target domain with unlabeled inputs."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Location, Texts

__all__ = ["DomainSpec"]


class DomainSpec(Part):
    """Inputs of another domain, and how the model gets used to them. Each other field belongs to some methods."""

    target: Location = Field(
        description="Inputs of the other domain, in any form that data.path takes, or a folder of images; labels "
        "are not read."
    )
    method: Literal["continue_pretraining", "coral", "dann"] = Field(
        description="continue_pretraining (the backbone fills in masked tokens or patches before the first stage), "
        "coral (like covariances of the features), or dann (features that do not tell the domain)."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="Factor (no unit) on what coral or dann adds to the loss of a stage.",
    )
    stages: Texts = Field(
        default=(),
        description="Names of the stages in which coral or dann is added; [] = those that train below the head.",
    )
    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Passes of continue_pretraining over its inputs; null = 1, or max_steps.",
    )
    max_steps: Count | None = Field(
        default=None, description="Number of optimiser steps of continue_pretraining; or give epochs."
    )
    lr: float = Field(
        default=5e-5, gt=0, description="Peak learning rate of continue_pretraining (per optimiser step)."
    )
    batch_size: Count = Field(
        default=32,
        description="Number of examples per process and forward pass of continue_pretraining.",
    )
    mask: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Fraction of the tokens or of the image that continue_pretraining masks; null = 0.15 of the "
        "tokens, 0.6 of the image.",
    )
    source: bool = Field(
        default=False, description="Whether continue_pretraining takes the inputs of the training split too."
    )
