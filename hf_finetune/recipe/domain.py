"""Recipe fields for domain adaptation to a target domain with unlabeled inputs, and the rules for them."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from hf_finetune.errors import Problem
from hf_finetune.fields.base import Part
from hf_finetune.fields.choice import Choice
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.fields.types import Count, Location, Texts

__all__ = ["Alignment", "ContinuePretraining", "DomainSpec", "domain_rule_problems"]


class DomainSpec(Choice):
    """Domain adaptation: unlabeled inputs of the target domain, and the method."""

    discriminator = "method"

    summary: ClassVar[str] = ""
    """Clause for the report of a run; empty for a method that is no alignment."""

    target: Location = Field(
        description="Unlabeled inputs of the target domain, in any form that data.path accepts, or a folder of "
        "images; labels are not read."
    )
    method: str = Field(description="Method of domain adaptation.")


class ContinuePretraining(DomainSpec):
    """Before the first stage, all layers below the head are trained to predict masked parts of the inputs.

    Tokens are masked (Devlin et al. 2019; Gururangan et al. 2020), or image patches, which one linear layer predicts
    (SimMIM, Xie et al. 2022). No measured benefit.
    """

    method: Literal["continue_pretraining"]
    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Number of epochs (passes over the inputs); null = 1, unless max_steps is set.",
    )
    max_steps: Count | None = Field(
        default=None, description="Number of optimizer steps; null = epochs is used."
    )
    lr: float = Field(
        default=5e-5,
        gt=0,
        description="Peak learning rate, after a warmup of 6 % of the steps; it then decreases linearly to 0.",
    )
    batch_size: Count = Field(default=32, description="Number of examples per process and forward pass.")
    mask: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Fraction of the tokens or of the image that is masked; null = 0.15 of the tokens, 0.6 of the "
        "image.",
    )
    source: bool = Field(
        default=False,
        description="Whether the inputs of the training split are used in addition to those of the target domain.",
    )


class Alignment(Part):
    """Alignment of the head's input in both domains, in the stages."""

    weight: float = Field(
        default=1.0,
        gt=0,
        description="Factor on the alignment loss, which is added to the loss of the labels; coral may need a "
        "far larger one than the default (see below).",
    )
    stages: Texts = Field(
        default=(),
        description="Names of the stages that use the method; [] = all stages that train layers below the head.",
    )


class Coral(Alignment, DomainSpec):
    """Adds the distance between the covariances of the head's input in both domains to the loss of a stage.

    This is Deep CORAL (Sun & Saenko 2016). No measured benefit.
    """

    summary = "the covariances of the head's inputs were aligned (Deep CORAL)"

    method: Literal["coral"]


class Dann(Alignment, DomainSpec):
    """Gradient reversal: a small classifier learns to distinguish the domains by the head's input.

    Its reversed gradient trains the backbone to prevent that (Ganin et al. 2016). No measured benefit.
    """

    summary = "the features were trained against a domain classifier (domain-adversarial training)"

    method: Literal["dann"]


def domain_rule_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems between fields of ``domain_adaptation``, and between these and other fields of a recipe.

    Args:
        recipe: Recipe as plain mappings and lists, any part of which may be missing or of the wrong type.
    """
    spec = as_mapping(recipe.get("domain_adaptation"))
    method = spec.get("method")
    option = DomainSpec.options().get(str(method))
    if spec.get("epochs") is not None and spec.get("max_steps") is not None:
        rule = "must have either epochs (passes over the inputs) or max_steps (optimizer steps)"
        value = f"epochs {spec['epochs']!r} and max_steps {spec['max_steps']!r}"
        yield Problem("domain_adaptation", rule, value)
    if option is ContinuePretraining and as_mapping(recipe.get("model")).get("adapter") is not None:
        rule = f"must not be set when domain_adaptation.method is {method}"
        repair = (
            "An adapter requires the checkpoint's original weights. Remove the adapter, or use coral or dann."
        )
        yield Problem("model.adapter", rule, "", repair)
    if option and issubclass(option, Alignment) and as_mapping(recipe.get("speed")).get("compile") is True:
        rule = f"must not be true when domain_adaptation.method is {method}"
        repair = "The method reads features inside the forward pass. Set it to false."
        yield Problem("speed.compile", rule, "true", repair)
