"""Generated labelled data of any task and label type, on disk in the formats that users have."""

import csv
import json
import random
from dataclasses import dataclass
from typing import Any

import torch

from hf_finetune.recipe.load import parse_recipe

EXAMPLES = 36
SEPARATOR = ";"


@dataclass(frozen=True)
class Case:
    """A task with a label type, its data on disk and its recipe.

    Attributes:
        task: Task.
        target: Label type.
        recipe: Recipe of two stages.
        names: Class names of the data, in order.
        inputs: Content of the main column of the examples: paths or texts.
        cells: Columns of the first example.
        predicted: Five examples as ``predict`` takes them; a table if an example has several required columns.
    """

    task: Any
    target: Any
    recipe: Any
    names: tuple[str, ...]
    inputs: tuple[str, ...]
    cells: dict[str, str]
    predicted: tuple[str, ...]


def make_case(folder, task, target):
    """Write a tiny checkpoint and generated data, and return them with their recipe.

    Args:
        folder: Empty folder.
        task: Task.
        target: Label type.
    """
    torch.manual_seed(0)
    checkpoint = folder / "checkpoint"
    task.modality.save_tiny_checkpoint(checkpoint)
    names = target.output_names((), ("bad", "good"))
    data, rows = write_data(folder / "data", task.modality, target, names)
    inputs = tuple(row[task.modality.main_column] for row in rows)
    first = "head" if task.has_new_head else "last:1"
    common = {"epochs": 2.0, "batch_size": 4, "optimizer": "sgd", "best": None}
    content = {
        "task": task.name,
        "model": str(checkpoint),
        "data": {**data, "target": target.name, "split": {"validation": 0.2, "test": 0.2}},
        "stages": [
            {"name": "head", "train": first, "lr": 0.05, **common},
            {"name": "all", "train": "all", "lr": 0.01, "layer_decay": 0.9, **common},
        ],
        "evaluation": {"linear_probe": None},
        "seed": 3,
    }
    predicted = inputs[:5]
    if sum(not role.optional for role in task.modality.roles) > 1:
        predicted = (str(write_table(folder / "predicted.csv", rows[:5])),)
    return Case(task, target, parse_recipe(content), names, inputs, rows[0], predicted)


def write_data(folder, modality, target, names):
    """Write generated examples, as class folders if an example is a file with one class, else as a csv.

    Returns:
        ``data`` of a recipe, and the columns of each example.
    """
    chance = random.Random(0)
    columns = modality.synthetic_examples(EXAMPLES, chance)
    labels = target.label_array(
        [target.synthetic_label(chance, len(names)) for _ in range(EXAMPLES)], len(names)
    )
    written = [target.decode(label, names) for label in labels]
    as_folders = modality.opens_files and target.is_exclusive
    rows = []
    for index, label in enumerate(written):
        row = {name: values[index] for name, values in columns.items()}
        place = folder / (label if as_folders else "examples")
        place.mkdir(parents=True, exist_ok=True)
        rows.append(modality.demo_values(modality.pipeline_input(row), place / f"{index:02d}"))
    if as_folders:
        return {"path": str(folder)}, rows
    if target.is_vector:
        written = [json.dumps(label) for label in written]
    several = any(isinstance(label, list) for label in written)
    cells = [SEPARATOR.join(label) if several else label for label in written]
    write_table(
        folder / "examples.csv", [{**row, "label": cell} for row, cell in zip(rows, cells, strict=True)]
    )
    column = {"name": "label", "separator": SEPARATOR} if several else "label"
    return {"path": str(folder / "examples.csv"), "columns": {"label": column}}, rows


def write_table(path, rows):
    """Write rows, each a dictionary of the same columns, as a csv, and return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
