"""Preview of augmented training examples: a contact sheet of images, or an HTML page of texts."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.distributed import start_processes
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import atomic_file, is_valid_path
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepare import prepare_run
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS
from hf_finetune.tasks.examples import PreviewRow
from hf_finetune.tasks.seeded_augmentation import set_epoch

__all__ = ["pick_diverse_examples", "preview"]


def preview(
    recipe: Recipe,
    output: Path | None = None,
    *,
    examples: int = 6,
    views: int = 5,
    trust_remote_code: bool = False,
) -> Path:
    """Write a contact sheet of augmented training images, or an HTML page of augmented training texts.

    The views are exactly those of the first epochs of a run, because the seed is the same.

    Args:
        recipe: Recipe of the run. Its checkpoint determines the preprocessing; no weights are read.
        output: File to write; an existing file is replaced. None writes ``preview.png`` or ``preview.html`` in the
            current folder.
        examples: Number of examples of each task.
        views: Number of views of each example.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        Path of the file.

    Raises:
        InputError: If recipe, data or checkpoint cannot be used, or if the file cannot be written under that name.
    """
    modality = TASKS[recipe.task_type].modality
    suffixes = modality.preview_suffixes
    path = output or Path(f"preview{suffixes[0]}")
    if path.suffix.lower() not in suffixes:
        rule = f"must end in {' or '.join(suffixes)} for {modality.plural}"
        raise InputError(Problem("--output", rule, repr(str(path)), f"For example preview{suffixes[0]}."))
    if not is_valid_path(path):
        raise InputError(Problem("--output", "must be a valid file name", repr(str(path))))
    if not path.parent.is_dir():
        raise InputError(Problem("--output", "must be in an existing folder", repr(str(path))))
    prepared = prepare_run(recipe, start_processes(), trust_remote_code=trust_remote_code)
    rows = [row for name, task in prepared.tasks.items() for row in _rows(name, task, examples, views)]
    sources = dict.fromkeys(Path(task.recipe.data.path).name for task in prepared.tasks.values())
    title = f"Augmented {modality.plural} of {' and '.join(sources)}"
    with atomic_file(path) as partial:
        modality.write_preview(rows, partial, title, path.suffix.lower())
    return path


def _rows(task: str, prepared: PreparedRun, examples: int, views: int) -> list[PreviewRow]:
    recipe, data = prepared.recipe, prepared.data
    inputs = prepare_inputs(prepared.task, data, prepared.processor, recipe.data, recipe.seed)
    modality = prepared.task.modality
    chosen = pick_diverse_examples(data.train["label"], examples)
    shown: dict[int, list[Any]] = {index: [] for index in chosen}
    numbers = {index: inputs.made_with(index) for index in chosen}
    for epoch in range(views):
        set_epoch(inputs.train, epoch)
        for index in chosen:
            shown[index].append(modality.preview_inputs(inputs.train[numbers[index]], prepared.processor))
    rows = []
    for index in chosen:
        example = data.train[index]
        label = _label(example["label"], data.label_names, data.target)
        label = f"{task}: {label}" if task else label
        rows.append(PreviewRow(label, modality.preview_example(example), shown[index]))
    return rows


def pick_diverse_examples(labels: Sequence[Any], count: int) -> list[int]:
    """Choose examples with as many different labels as possible.

    Args:
        labels: Label of each example.
        count: Number of examples to choose, at most.

    Returns:
        Indices of the first example of each label, then of the second example of each label, and so on.
    """
    by_label: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(str(label), []).append(index)
    rounds = zip_longest(*by_label.values())
    return [index for indices in rounds for index in indices if index is not None][:count]


def _label(label: Any, names: Sequence[str], target: str) -> str:
    kind = TARGETS[target]
    shown = kind.decode(kind.label_array([label], len(names))[0], names)
    if kind.is_numeric:
        return f"{shown:g}"
    return ", ".join(map(str, shown)) if isinstance(shown, list) else str(shown)
