"""Recipe fields for the classification head."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema

from hf_finetune.fields.choice import Choice
from hf_finetune.fields.types import Count, as_tuple

__all__ = ["CHECKPOINT_POOLING", "OWN_POOLING", "POOLING_DESCRIPTIONS", "HeadSpec", "describe_kind"]

OWN_POOLING = "own"
"""Value of ``pool``: the architecture's own pooling."""
CHECKPOINT_POOLING = "auto"
"""Value of ``pool``: the pooling that suits the checkpoint."""
POOLING_DESCRIPTIONS = {
    OWN_POOLING: "the output that the architecture's own head reads",
    "cls": "the first token",
    "mean": "the mean over tokens",
    "max": "the maximum over tokens",
    "weightedmean": "the mean over tokens, weighted by position",
    "mean_sqrt_len": "the sum over tokens, divided by the square root of their number",
}
"""Descriptions of poolings, for notes and reports, also of those that only 1_Pooling/config.json names."""


def describe_kind(name: str) -> str:
    """Return the description of a pooling; of a layer, its name.

    Args:
        name: Name of the pooling or layer.
    """
    return POOLING_DESCRIPTIONS.get(name, name)


COUNT = {"type": "integer", "minimum": 1}


def _sizes(value: Any) -> Any:
    """Convert a number to a tuple of one element, and a list to a tuple."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else as_tuple(value)


Sizes = Annotated[
    tuple[Count, ...],
    Field(min_length=1),
    BeforeValidator(_sizes),
    WithJsonSchema({"anyOf": [COUNT, {"type": "array", "items": COUNT, "minItems": 1}]}),
]


class HeadSpec(Choice):
    """Head that computes the logits from the features of the backbone."""

    shorthand = discriminator = "type"

    type: str = "linear"
    pool: Literal["auto", "own", "cls", "mean", "attention"] | None = Field(
        default=None,
        description="Pooling of the tokens of a text, or of the positions of an image: auto = the one that suits "
        "the checkpoint (docs/rates.md); own = the architecture's; cls = the first token (Devlin et "
        "al. 2019); mean = the mean (Reimers & Gurevych 2019); attention = a mean with learned "
        "weights (Ilse et al. 2018); null = auto if no stage sets lr and the conditions below the "
        "table hold, else own; for texts, it is chosen by cross-validation if the strategy is features "
        "or solvers fit all stages.",
    )

    layers: Literal["last", "weighted"] | Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Layers whose outputs the head of a speech model reads: last = the last one; weighted = a sum of "
        "all layers with learned weights (Yang et al. 2021, SUPERB); a number (no unit) = that layer, from 0 for the "
        "input of the first one; null = chosen by cross-validation if the strategy is features or solvers fit all "
        "stages, else that of the checkpoint, usually the last one.",
    )

    bias: Literal["frequencies"] | None = Field(
        default=None,
        description="Initial biases of a new head: frequencies = the log-odds of the frequency of each class in the "
        "training split (for one class per example, the logarithms of the frequencies), so that training begins with "
        "the predictions of the constant baseline (Lin et al. 2017); null = the architecture's, usually 0.",
    )

    @property
    def is_plain(self) -> bool:
        """Whether the head is that of the architecture: linear, with its own pooling; None counts as that."""
        return False

    def with_explicit_pooling(self) -> Self:
        """Return the head with the architecture's own pooling if ``pool`` is not set."""
        return self.model_copy(update={"pool": self.pool or OWN_POOLING})

    def fields(self) -> dict[str, Any]:
        """Return the fields of a head of this package as plain values; the architecture's own pooling is None."""
        fields = self.model_dump(mode="json", exclude={"layers", "bias"})
        return fields | {"pool": None if self.pool == OWN_POOLING else self.pool}


class LinearHead(HeadSpec):
    """One linear layer, the architecture's own head."""

    type: Literal["linear"] = "linear"

    @property
    def is_plain(self) -> bool:
        """Whether the pooling is the architecture's own, or not set."""
        return self.pool in (None, OWN_POOLING)


class MlpHead(HeadSpec):
    """Hidden layers before the logits (Rumelhart et al. 1986). No measured benefit."""

    type: Literal["mlp"]
    hidden: Sizes = Field(
        default=(1024,),
        description="Sizes of the hidden layers (no unit), from the backbone to the logits. No measured benefit.",
    )
    activation: Literal["relu", "gelu", "tanh", "silu"] | None = Field(
        default=None,
        description="Activation function after each hidden layer; null = that of the hidden layer that a timm "
        "architecture has in its head, else relu.",
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="Probability of dropping an activation of a hidden layer."
    )


class CosineHead(HeadSpec):
    """Cosine similarity to a learned vector of each class, times a learned scale (Gidaris & Komodakis 2018).

    It needs a higher learning rate. No measured benefit.
    """

    type: Literal["cosine"]
