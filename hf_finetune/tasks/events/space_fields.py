"""Field of the page for a history of events."""

from typing import Any

import gradio as gr


def components(settings: dict[str, Any]) -> list[Any]:
    """Return the field of the page.

    Args:
        settings: Settings of the Space.
    """
    return [gr.Textbox(lines=4, label="History of events, the newest first")]


def model_input(settings: dict[str, Any], history: str | None) -> tuple[Any, dict[str, Any]]:
    """Return the history, and the options of the pipeline that leave out its oldest events.

    Args:
        settings: Settings of the Space, among them ``max_length`` in tokens.
        history: Text form of a history.
    """
    if not (history or "").strip():
        raise gr.Error("The history is empty.")
    return history, {"truncation": True, "max_length": settings["max_length"]}
