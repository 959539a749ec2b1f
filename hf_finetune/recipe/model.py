"""Recipe fields for the pretrained checkpoint."""

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Location, NonEmptyText, Patterns
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.recipe.head import HeadSpec

__all__ = ["ModelSpec"]


class ModelSpec(Part):
    """The pretrained checkpoint."""

    shorthand = "path"

    path: Location = Field(description="Checkpoint: a Hub id (timm/... for timm's) or a local folder.")
    revision: NonEmptyText | None = Field(
        default=None,
        description="Branch, tag or commit of the checkpoint on the Hub; null = the main branch.",
    )
    adapter: AdapterSpec | None = Field(
        default=None,
        description="Adapter that stages can train; null = none.",
    )
    head: HeadSpec = Field(default=HeadSpec(), description="Classification head.")
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Dropout probability before the head and, in transformers models, of the hidden states "
        "(Srivastava et al. 2014); the dropout of attention weights does not change; null = the "
        "checkpoint's. No measured benefit.",
    )
    drop_path: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Probability of skipping the last block for an example (stochastic depth, Huang et al. 2016); "
        "it decreases linearly to 0 at the first block; null = the checkpoint's. No measured benefit.",
    )
    resize_embeddings: bool = Field(
        default=False,
        description="Whether tokens of the checkpoint's tokenizer for which the model has no embedding get a new "
        "one; otherwise, they are an error.",
    )
    allow_missing: Patterns = Field(
        default=(),
        description="Regular expressions of weight names that may be missing from, or unexpected in, the "
        "checkpoint.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Declares that the checkpoint needs custom code, which runs only with the option "
        "--trust-remote-code.",
    )
