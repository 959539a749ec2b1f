"""Recipe fields for the pretrained checkpoint, or for a new model in its place."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hf_finetune.errors import InputError, Problem, join_words, short_repr
from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Location, NonEmptyText, Patterns
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.recipe.head import HeadSpec
from hf_finetune.tasks import MODALITIES, TASKS

__all__ = ["ModelSpec", "NewModelSpec", "model_title", "new_model_problems"]


class NewModelSpec(Part):
    """Model without pretrained weights, made for the training split: its tokenizer, or the length of its input."""

    layers: Count = Field(default=2, description="Number of transformer layers.")
    hidden: int = Field(
        default=64,
        ge=16,
        multiple_of=16,
        description="Size of the hidden states, a multiple of 16 (no unit).",
    )


class ModelSpec(Part):
    """The pretrained checkpoint, or a new model."""

    shorthand = "path"

    path: Location = Field(
        default="",
        description="Checkpoint: a Hub id (timm/... for timm's) or a local folder; required unless new is set.",
    )
    new: NewModelSpec | None = Field(
        default=None,
        description="Model with random weights, in place of a checkpoint, for histories and time series: nothing "
        "is pretrained; null = the checkpoint of path.",
    )
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

    @property
    def title(self) -> str:
        """Checkpoint, or a description of the new model."""
        return model_title(self.model_dump())

    @model_validator(mode="before")
    @classmethod
    def _check_source(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("new") is not None and value.get("path"):
            rule, fix = "must not have both path and new", "Remove path, or set new to null."
            raise InputError(Problem("", rule, short_repr(value["path"]), fix))
        return value

    @model_serializer(mode="wrap")
    def _without_folder(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the path of a new model: it is a folder of this machine's cache, which a run fills in."""
        fields: dict[str, Any] = handler(self)
        return fields if self.new is None else {name: fields[name] for name in fields if name != "path"}


def model_title(model: Mapping[str, Any]) -> str:
    """Return the name of the checkpoint of a recipe, or a description of its new model.

    Args:
        model: ``model`` of the recipe, as a plain mapping.
    """
    new = model.get("new")
    if new is None:
        return str(model["path"])
    return f"a new model of {new['layers']} layers and hidden size {new['hidden']}"


def new_model_problems(task: Any, model: Any) -> Iterator[Problem]:
    """Yield the problems of a model that has no checkpoint.

    Args:
        task: ``task`` of the recipe.
        model: ``model`` of the recipe, as plain mappings; it may be of the wrong type.
    """
    if not isinstance(model, Mapping):
        return
    if model.get("new") is None:
        if "path" not in model or model["path"] == "":
            yield Problem("model.path", "must be set", repair=str(ModelSpec.model_fields["path"].description))
        return
    if isinstance(task, str) and not (task in TASKS and TASKS[task].modality.builds_new_models):
        able = join_words(modality.plural for modality in MODALITIES.values() if modality.builds_new_models)
        fix = f"Only models for {able} are built without a checkpoint."
        yield Problem("model.new", f"must not be set when the task is {task}", repair=fix)
    for field in ("adapter", "revision"):
        if model.get(field) is not None:
            yield Problem(f"model.{field}", "must not be set when model.new is set", short_repr(model[field]))
