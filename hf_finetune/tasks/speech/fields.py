"""Fields of ``data`` in recipes for speech."""

from pydantic import Field

from hf_finetune.fields.types import NonEmptyText
from hf_finetune.tasks.audio.fields import WindowFields

__all__ = ["SpeechFields"]


class SpeechFields(WindowFields):
    """Language of the recordings, and length of the model's input."""

    language: NonEmptyText | None = Field(
        default=None,
        description="Language that is spoken, as the checkpoint names it, such as nl or dutch; required for a "
        "checkpoint of several languages; for others en or null.",
    )
