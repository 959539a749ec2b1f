"""Recipe fields for the limit of a run. Each field description states the meaning and the unit."""

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.durations import parse_duration
from hf_finetune.fields.types import Duration

__all__ = ["LimitSpec"]


class LimitSpec(Part):
    """Limit of a run; stages that do not fit are laid out for fewer steps."""

    shorthand = "time"

    time: Duration = Field(
        description="Time of the whole run, with its evaluations and all resumes, such as 90s, 20m or 1h30m; a number "
        "is in seconds. A stage takes as many steps as fit, by measurement, and its schedule ends at the last one."
    )

    @property
    def seconds(self) -> float:
        """Time in seconds."""
        return parse_duration(self.time) or 0.0
