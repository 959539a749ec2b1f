"""Fields of ``data`` in recipes for histories of events."""

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, NonEmptyText

__all__ = ["EventFields", "OutcomeSpec"]


class OutcomeSpec(Part):
    """Label that is computed from a table with one row per event: whether an event follows within some weeks."""

    shorthand = "weeks"

    weeks: Count = Field(
        description="Number of weeks after the date in which an event makes the label yes; without one it is no."
    )
    kind: NonEmptyText | None = Field(default=None, description="Kind of that event; null = any.")


class EventFields(Part):
    """Labels and length of histories of events."""

    outcome: OutcomeSpec | None = Field(
        default=None,
        description="Label of a table with one row per event: whether an event follows within this number of weeks "
        "after data.split.time; training histories end, and their weeks begin, that many weeks earlier; null = the "
        "label is in a column.",
    )
    max_events: Count | None = Field(
        default=None,
        description="Maximum number of events of a history, where each counts as three tokens, even without a gap or "
        "an amount; older events are left out; null = what the model takes.",
    )
    buckets: int = Field(
        default=10,
        ge=2,
        le=100,
        description="Number of buckets of gaps and of amounts in the tokenizer of a new model, with equal numbers of "
        "training events.",
    )
