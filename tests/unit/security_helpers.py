"""Inputs that write a file if code in them runs, and checks for that file."""

import json
from pathlib import Path

import pytest
from evaluation_helpers import save_bert, save_vit

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe

METRIC = """
import datasets
import evaluate

class Share(evaluate.Metric):
    def _info(self):
        number = datasets.Value("int64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"share": sum(p == r for p, r in zip(predictions, references)) / len(references)}
"""
MODEL = """
from transformers import BertConfig, BertForSequenceClassification

class OwnConfig(BertConfig):
    model_type = "own_bert"

class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""
TOKENIZER = """
from transformers import BertTokenizerFast

class OwnTokenizerFast(BertTokenizerFast):
    pass
"""
PROCESSOR = """
from transformers import ViTImageProcessor

class OwnImageProcessor(ViTImageProcessor):
    pass
"""


class Canary:
    """A file that code writes when it runs.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def code(self) -> str:
        """Return one line of Python that writes the file."""
        return f"open({str(self.path)!r}, 'w').close()"

    def script(self, path: Path, content: str = "") -> Path:
        """Write a Python file that writes the canary first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{self.code}\n{content}", encoding="utf-8")
        return path

    @property
    def ran(self) -> bool:
        return self.path.exists()

    def __reduce__(self):
        """Write the file when this object is unpickled."""
        return exec, (self.code,)


def change_json(path: Path, **changes) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def save_own_model(folder: Path, canary: Canary) -> Path:
    """Save a text classifier that transformers loads only with the code next to it."""
    save_bert(folder)
    canary.script(folder / "modeling_own.py", MODEL)
    auto_map = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForSequenceClassification": "modeling_own.OwnForSequenceClassification",
    }
    names = ["OwnForSequenceClassification"]
    change_json(folder / "config.json", model_type="own_bert", architectures=names, auto_map=auto_map)
    return folder


def save_own_tokenizer(folder: Path, canary: Canary) -> Path:
    """Save a text classifier whose tokenizer transformers loads only with the code next to it."""
    save_bert(folder)
    canary.script(folder / "tokenization_own.py", TOKENIZER)
    change_json(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "tokenization_own.OwnTokenizerFast"]},
    )
    return folder


def save_own_processor(folder: Path, canary: Canary) -> Path:
    """Save an image classifier whose processor transformers loads only with the code next to it."""
    save_vit(folder)
    canary.script(folder / "processing_own.py", PROCESSOR)
    change_json(
        folder / "preprocessor_config.json",
        image_processor_type="OwnImageProcessor",
        auto_map={"AutoImageProcessor": "processing_own.OwnImageProcessor"},
    )
    return folder


def text_recipe(model, data, **changes):
    stage = {"name": "head", "train": "head", "epochs": 1, "lr": 0.01}
    content = {"task": "text-classification", "model": model, "data": str(data), "stages": [stage]}
    return parse_recipe({**content, **changes})


def image_recipe(model, data, **changes):
    return text_recipe(model, data, task="image-classification", **changes)


def refused(call, *args, **options):
    """Return the message of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    return str(caught.value)
