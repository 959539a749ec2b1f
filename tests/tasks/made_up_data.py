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
        inputs: Examples as ``predict`` takes them: paths or texts.
    """

    task: Any
    target: Any
    recipe: Any
    names: tuple[str, ...]
    inputs: tuple[str, ...]


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
    data, inputs = write_data(folder / "data", task.modality, target, names)
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
    return Case(task, target, parse_recipe(content), names, inputs)


def write_data(folder, modality, target, names):
    """Write generated examples, as class folders if an example is a file with one class, else as a csv.

    Returns:
        ``data`` of a recipe, and the examples as ``predict`` takes them.
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
    inputs = tuple(row[modality.main_column] for row in rows)
    if as_folders:
        return {"path": str(folder)}, inputs
    if target.is_vector:
        written = [json.dumps(label) for label in written]
    several = any(isinstance(label, list) for label in written)
    with (folder / "examples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*rows[0], "label"])
        for row, label in zip(rows, written, strict=True):
            writer.writerow([*row.values(), SEPARATOR.join(label) if several else label])
    column = {"name": "label", "separator": SEPARATOR} if several else "label"
    return {"path": str(folder / "examples.csv"), "columns": {"label": column}}, inputs
