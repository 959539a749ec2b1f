"""Fields of the page for an example that is a file."""

from typing import Any

import gradio as gr


def components(settings: dict[str, Any]) -> list[Any]:
    """Return the fields of the page."""
    return [gr.File(type="filepath", label=settings["label"])]


def model_input(settings: dict[str, Any], path: str | None) -> tuple[Any, dict[str, Any]]:
    """Return the path of the file, and no options."""
    if path is None:
        raise gr.Error("There is no file.")
    return path, {}
