"""Gradio app for a model, which runs as a Space of the Hub, or anywhere else, without this package."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import TimmWrapperConfig

from hf_finetune.data.input_columns import takes_pairs
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.classifier import Classifier, load_classifier, resolve_model_dir
from hf_finetune.evaluation.finished import find_run, find_run_recipe, training_columns
from hf_finetune.files import atomic_folder
from hf_finetune.models.classifier_head import is_given
from hf_finetune.models.head_spec import CODE
from hf_finetune.publishing.exported_pipeline import get_processor
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS

__all__ = ["write_space"]

_APP = Path(__file__).with_name("space_app.py")
# Files of a checkpoint to copy; the README and all other files are not copied.
_CHECKPOINT = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")

_README = """\
---
title: {title}
sdk: gradio
app_file: app.py
---

Try a model for {task}. `app.py` is plain transformers and gradio; to run it elsewhere:

    pip install -r requirements.txt
    python app.py
"""


def write_space(model_or_run: str | Path, folder: Path) -> None:
    """Write app.py, fields.py, settings.json, requirements.txt, README.md and the model, without any examples.

    Args:
        model_or_run: Run directory, checkpoint folder, or Hub id; a model with a Hub id is not copied, and the Space
            loads it from the Hub.
        folder: Output folder, which must be empty or not exist.

    Raises:
        InputError: If the model cannot be loaded or depends on remote code, or if the folder is not empty.
    """
    is_empty_folder = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_empty_folder:
        raise InputError(Problem("--space", "must be an empty folder or not exist", repr(str(folder))))
    recipe = find_run_recipe(model_or_run)
    if recipe is not None and recipe.model.trust_remote_code:
        raise InputError(Problem("--space", "must not be set for a model with custom code"))
    classifier = load_classifier(model_or_run)
    source = resolve_model_dir(model_or_run)
    with_code = is_given(classifier.pipe.model.config)
    if with_code and not isinstance(source, Path):
        rule = "must not be set for a Hub model with custom code"
        raise InputError(Problem("--space", rule, repr(source), "Pass its folder or its run."))
    if not TASKS[classifier.task].has_label_head:
        rule = f"is not supported for {classifier.task} models: the page shows the labels of a head"
        raise InputError(Problem("--space", rule))
    if not TARGETS[classifier.target].has_standard_loss:
        rule = f"is not supported for {classifier.target} labels, which have their own loss"
        raise InputError(Problem("--space", rule))
    pairs = bool(takes_pairs(training_columns(model_or_run, classifier)))
    title = (find_run(model_or_run) or Path(source)).absolute().name
    settings = _settings(classifier, title, None if isinstance(source, Path) else source, pairs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        partial.mkdir()
        if isinstance(source, Path):
            _copy_checkpoint(source, partial / "model")
            if with_code:
                shutil.copyfile(CODE, partial / "model" / CODE.name)
        shutil.copyfile(_APP, partial / "app.py")
        shutil.copyfile(classifier.modality.space_code, partial / "fields.py")
        _write(partial / "settings.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        _write(partial / "requirements.txt", "\n".join(_requirements(classifier)) + "\n")
        # Every JSON string is a valid YAML string.
        quoted_title = json.dumps(title, ensure_ascii=False)
        _write(partial / "README.md", _README.format(title=quoted_title, task=classifier.task))


def _settings(classifier: Classifier, title: str, model: str | None, pairs: bool) -> dict[str, Any]:
    target = TARGETS[classifier.target]
    return {
        "title": title,
        "task": TASKS[classifier.task].pipeline_name,
        "is_numeric": target.is_numeric,
        "is_exclusive": target.is_exclusive,
        "model": model,
        "classes": list(classifier.label_names),
        "temperature": classifier.temperature,
        "code_of_head": is_given(classifier.pipe.model.config),
        **classifier.modality.space_settings(get_processor(classifier), pair=pairs),
    }


def _copy_checkpoint(source: Path, folder: Path) -> None:
    folder.mkdir()
    for pattern in _CHECKPOINT:
        for file in source.glob(pattern):
            _check_link(file, source)
            shutil.copyfile(file, folder / file.name)


def _check_link(file: Path, source: Path) -> None:
    """Raise an InputError for a symbolic link out of the checkpoint, whose target would be published with the Space.

    Links into ``blobs`` next to the snapshots are allowed: the cache of the Hub consists of them.
    """
    root, target = source.resolve(), file.resolve()
    if not (target.is_relative_to(root) or target.parent == root.parent.parent / "blobs"):
        rule = "must not be a link to a file outside of the checkpoint folder"
        raise InputError(
            Problem(str(file), rule, repr(str(target)), "Replace the link by a copy of the file.")
        )


def _requirements(classifier: Classifier) -> list[str]:
    """Return the requirements of app.py, with the installed versions of the model libraries as lower bounds."""
    names = ["torch", "transformers", *classifier.modality.packages]
    if isinstance(classifier.pipe.model.config, TimmWrapperConfig):
        names.append("timm")
    releases = {name: version(name).partition("+")[0] for name in names}  # 2.9.0 for 2.9.0+cu128
    return ["gradio>=6", "numpy", "pillow", *(f"{name}>={release}" for name, release in releases.items())]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
