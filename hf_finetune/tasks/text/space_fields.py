"""Fields of the page for a text or a pair of texts."""

from typing import Any

import gradio as gr


def components(settings: dict[str, Any]) -> list[Any]:
    """Return the fields of the page."""
    labels = ["Text", "Second text"] if settings["pairs"] else ["Text"]
    return [gr.Textbox(lines=4, label=label) for label in labels]


def model_input(
    settings: dict[str, Any], text: str | None, text_pair: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """Return the text or both texts, and the options of the pipeline that truncate them."""
    texts = {"text": text} if text_pair is None else {"text": text, "text_pair": text_pair}
    if not all((part or "").strip() for part in texts.values()):
        raise gr.Error("The text is empty.")
    return texts, {"truncation": True, "max_length": settings["max_length"]}
