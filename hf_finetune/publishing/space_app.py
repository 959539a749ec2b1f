"""Try the model in this folder, with plain transformers and gradio. Settings of the model are in settings.json."""

import json
from pathlib import Path
from typing import Any

import fields
import gradio as gr
import numpy as np
from transformers import pipeline

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
CLASSES = SETTINGS["classes"]

# the code of a custom head is a file next to the weights
CODE_OPTIONS = {"trust_remote_code": True} if SETTINGS["code_of_head"] else {}
pipe = pipeline(SETTINGS["task"], model=SETTINGS["model"] or str(HERE / "model"), **CODE_OPTIONS)
pipe.model.config.id2label = dict(enumerate(CLASSES))


def classify(*values: Any) -> Any:
    """Return the probability of each class, or the predicted value, for the values of the fields."""
    example, options = fields.model_input(SETTINGS, *values)
    outputs = pipe(example, function_to_apply="none", top_k=len(CLASSES), **options)
    by_class = {output["label"]: output["score"] for output in outputs}
    logits = np.array([by_class[name] for name in CLASSES], dtype=np.float64) / SETTINGS["temperature"]
    if SETTINGS["is_numeric"]:
        return f"{logits[0]:.4g}"
    if SETTINGS["is_exclusive"]:
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
    else:
        scores = 1 / (1 + np.exp(-logits))
    return dict(zip(CLASSES, scores.tolist(), strict=True))


page = gr.Interface(
    classify,
    fields.components(SETTINGS),
    gr.Textbox(label="Prediction")
    if SETTINGS["is_numeric"]
    else gr.Label(num_top_classes=min(10, len(CLASSES))),
    title=SETTINGS["title"],
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
