"""Suffixes of audio files, and advice on converting files of other formats."""

from collections.abc import Iterable
from pathlib import Path

from hf_finetune.errors import Problem, join_quoted

__all__ = ["AUDIO_SUFFIXES", "has_unsupported_audio_format", "unreadable_problems"]

AUDIO_SUFFIXES = frozenset(
    {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
)
"""Suffixes of the formats that libsndfile reads and people use, in lower case."""
_UNSUPPORTED = frozenset(
    {".3gp", ".aac", ".amr", ".ape", ".m4a", ".mka", ".mp4", ".ra", ".webm", ".wma", ".wv"}
)
_REPAIR = "Convert these files, for example with `ffmpeg -i FILE -ac 1 FILE.flac`."


def has_unsupported_audio_format(name: str) -> bool:
    """Return whether a file is a recording in a format that must be converted first, by its suffix.

    Args:
        name: Name of the file.
    """
    return Path(name).suffix.lower() in _UNSUPPORTED


def unreadable_problems(place: str, files: Iterable[Path]) -> list[Problem]:
    """Return a problem for recordings in formats that cannot be read and would be skipped.

    Args:
        place: Name of the folder in the message.
        files: All files of one class folder.
    """
    names = [Path(file).name for file in files if has_unsupported_audio_format(str(file))]
    if not names:
        return []
    return [Problem(place, "must contain recordings in supported formats", join_quoted(names), _REPAIR)]
