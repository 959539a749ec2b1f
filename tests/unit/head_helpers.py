"""Tiny classifiers with other heads, saved, and loaded by a process without hf_finetune."""

import json

import torch
from plain_process import run_plain

from hf_finetune.models.build import build_model, read_config
from hf_finetune.models.export import export_model
from hf_finetune.models.head_spec import set_head
from hf_finetune.tasks import TASKS

__all__ = ["HEADS", "batch_of", "built", "export", "logits_elsewhere", "save"]

NAMES = ["cake", "soup", "tea"]
HEADS = {
    "mlp": {"type": "mlp", "pool": None, "hidden": [7, 5], "activation": "gelu", "dropout": 0.3},
    "cosine": {"type": "cosine", "pool": None},
    "cls": {"type": "linear", "pool": "cls"},
    "mean": {"type": "linear", "pool": "mean"},
    "attention": {"type": "mlp", "pool": "attention", "hidden": [6], "activation": None, "dropout": 0.0},
}

ELSEWHERE = """
import json, sys
sys.modules["hf_finetune"] = None
import torch
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

found = {}
for name, (folder, kind) in json.load(sys.stdin).items():
    auto = AutoModelForImageClassification if kind == "image" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, trust_remote_code=True).eval()
    batch = torch.load(folder + "/batch.pt")
    with torch.no_grad():
        found[name] = model(**batch).logits
torch.save(found, sys.argv[1])
"""


class NoProcessor:
    """Processor without files."""

    def save_pretrained(self, folder):
        pass


def batch_of(model):
    """Return two inputs; the second text is shorter."""
    generator = torch.Generator().manual_seed(0)
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    ids = torch.randint(5, 15, (2, 6), generator=generator)
    ids[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def save(model, folder):
    """Save a classifier as a checkpoint whose labels differ from the requested ones."""
    model.config.id2label = dict(enumerate(["a", "b", "c"]))
    model.config.label2id = {name: index for index, name in enumerate(["a", "b", "c"])}
    model.save_pretrained(folder)
    return folder


def built(folder, modality, head, names=NAMES):
    """Build a classifier from a checkpoint."""
    config = read_config(str(folder), names, "single_label")
    set_head(config, head)
    return build_model(
        str(folder),
        config,
        task=TASKS[f"{modality}-classification"],
    ).model.eval()


def export(model, folder):
    """Export a finished model and example inputs; return its logits of them."""
    export_model(model, NoProcessor(), folder)
    torch.save(batch_of(model), folder / "batch.pt")
    with torch.no_grad():
        return model(**batch_of(model)).logits


def logits_elsewhere(folders, output):
    """Load models in a process that cannot import hf_finetune, and return their logits.

    Args:
        folders: Folder and modality by name.
        output: A file for the process to write.
    """
    asked = {name: (str(folder), kind) for name, (folder, kind) in folders.items()}
    done = run_plain(ELSEWHERE, output, cwd=output.parent, stdin=json.dumps(asked))
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return torch.load(output)
