"""Finished runs without training, and the requests that a Hub has received."""

import base64
import json
import shutil
import subprocess
import sys
from urllib.parse import unquote

import pytest
from forked_cli import forked_cli
from launching import fork

from hf_finetune.cli import app as command_line
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.training.manifest import Manifest, StageRecord

STAGE = {"name": "head", "train": "head", "lr": 0.05, "epochs": 1.0, "batch_size": 8}
CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
tags: [tiny]
---
# Reviews
"""


def recipe_of(model, data, **changes):
    content = {
        "task": "text-classification",
        "model": str(model),
        "data": {"path": str(data), "split": {"validation": 0.15, "test": 0.15}},
        "stages": [STAGE],
    }
    return parse_recipe({**content, **changes})


def make_run(folder, checkpoint, **changes):
    """Write the files of a finished run with the weights of a checkpoint."""
    model = folder / "model"
    shutil.copytree(checkpoint, model)
    (model / "README.md").write_text(CARD, encoding="utf-8")
    recipe = recipe_of(checkpoint, folder.parent / "secret-data" / "reviews.csv", **changes)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    records = (StageRecord("head", "done"),)
    Manifest(records, {}, {}, 0, recipe=recipe.model_dump(mode="json"), state="done").write(
        folder / "manifest.json"
    )
    stage = folder / "stages" / "01-head" / "checkpoint-4"
    stage.mkdir(parents=True)
    for place in (stage / "optimizer.pt", model / "optimizer.pt", model / "training_args.bin"):
        place.write_bytes(b"STATE OF THE OPTIMISER")
    (folder / "predictions.parquet").write_bytes(b"PREDICTIONS ON THE DATA")
    (model / "reviews.csv").write_text("THE DATA ITSELF\n", encoding="utf-8")
    (stage.parent / "log.jsonl").write_text('{"log": "THE LOG"}\n', encoding="utf-8")
    return folder


def set_state(folder, **changes):
    """Change the manifest of a run."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def refused(function, *arguments, **options):
    """Return the text of the InputError that a call must raise."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def received(app):
    """Return the bodies of all requests, and the decoded base64 in them."""
    pieces = []
    for seen in app.state.seen:
        pieces += [f"{seen.method} {unquote(seen.path)}?{unquote(seen.query)}".encode(), seen.body]
        for line in seen.body.splitlines():
            pieces += _decoded(line)
    return b"\n".join(pieces)


def _decoded(line):
    try:
        content = json.loads(line)
    except ValueError:
        return []
    values = [content.get("value", {}), *content.get("files", [])] if isinstance(content, dict) else []
    return [base64.b64decode(value[key]) for value in values for key in ("content", "sample") if key in value]


def python(code, *arguments, check=True):
    """Run a program in a new process, where every library reads the environment again."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def cli(*arguments, check=True, **options):
    """Run the command line in its own process, whose client uses the test Hub."""
    done = forked_cli(*arguments, **options)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def on_two_processes(folder, *arguments):
    """Run the command line on two processes in a folder."""

    def command():
        sys.argv = ["hf-finetune", *map(str, arguments)]
        try:
            command_line.main()
        except SystemExit as error:
            if error.code:
                raise

    code, said = fork(folder, 2, command)
    assert code == 0, said
