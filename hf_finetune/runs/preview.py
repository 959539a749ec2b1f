"""Preview of augmented training examples: a contact sheet of images, or an HTML page of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from hf_finetune.data.images import to_rgb
from hf_finetune.data.seeded_augmentation import set_epoch
from hf_finetune.distributed import start_processes
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import can_be_path, replacing
from hf_finetune.recipe import Recipe
from hf_finetune.recipe.multitask import refuse_several
from hf_finetune.runs.prepare import prepare_run
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.tasks.inputs import prepare_inputs

__all__ = ["contact_sheet", "preview", "spread_over_classes", "text_page"]

NAMES = {"image": "preview.png", "text": "preview.html"}
SUFFIXES = {"image": (".png", ".jpg", ".jpeg"), "text": (".html", ".htm")}
CELL, GAP, LINE = 160, 8, 18
"""Sizes of the contact sheet, in pixels."""
LONGEST = 22
"""Maximum number of characters of a label on the contact sheet."""

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; table-layout: fixed; width: 100%; }}
th, td {{ border: 1px solid #ccc; padding: .5em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }}
</style>
<h1>{title}</h1>
<table>
<tr>{headings}</tr>
{rows}
</table>
"""


@dataclass(frozen=True)
class Row:
    """Training example with its augmented versions.

    Attributes:
        label: Label as text.
        original: Image or text before augmentation.
        versions: Augmented versions, one for each epoch.
    """

    label: str
    original: Any
    versions: Sequence[Any]


def preview(
    recipe: Recipe,
    output: Path | None = None,
    *,
    examples: int = 6,
    versions: int = 5,
    trust_remote_code: bool = False,
) -> Path:
    """Write a contact sheet of augmented training images, or an HTML page of augmented training texts.

    The versions are exactly those of the first epochs of a run, because the seed is the same.

    Args:
        recipe: Recipe of the run. Its checkpoint determines the preprocessing; no weights are read.
        output: File to write; an existing file is replaced. None writes ``preview.png`` or ``preview.html`` in the
            current folder.
        examples: Number of examples.
        versions: Number of versions of each example.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        Path of the file.

    Raises:
        InputError: If recipe, data or checkpoint cannot be used, or if the file cannot be written under that name.
    """
    refuse_several(recipe, "preview")
    modality = "image" if recipe.task == "image-classification" else "text"
    path = output or Path(NAMES[modality])
    if path.suffix.lower() not in SUFFIXES[modality]:
        rule = f"must end in {' or '.join(SUFFIXES[modality])} for {modality}s"
        raise InputError(Problem("--output", rule, repr(str(path)), f"For example {NAMES[modality]}."))
    if not can_be_path(path):
        raise InputError(Problem("--output", "must be a name that a file can have", repr(str(path))))
    if not path.parent.is_dir():
        raise InputError(Problem("--output", "must be in a folder that there is", repr(str(path))))
    prepared = prepare_run(recipe, start_processes(), trust_remote_code=trust_remote_code)
    rows = _rows(prepared, examples, versions)
    with replacing(path) as partial:
        if modality == "image":
            kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
            contact_sheet(rows).save(partial, kind)
        else:
            partial.write_text(
                text_page(rows, f"Augmented texts of {Path(recipe.data.path).name}"), encoding="utf-8"
            )
    return path


def _rows(prepared: PreparedRun, examples: int, versions: int) -> list[Row]:
    recipe, data = prepared.recipe, prepared.data
    inputs = prepare_inputs(prepared.task, data, prepared.processor, recipe.data, recipe.seed)
    is_image = prepared.task.modality == "image"
    chosen = spread_over_classes(data.train["label"], examples)
    shown: dict[int, list[Any]] = {index: [] for index in chosen}
    for version in range(versions):
        set_epoch(inputs.train, version)
        for index in chosen:
            example = inputs.train[index]
            shown[index].append(
                _picture(example["pixel_values"])
                if is_image
                else prepared.processor.decode(example["input_ids"])
            )
    rows = []
    for index in chosen:
        example = data.train[index]
        original = to_rgb(example["image"]) if is_image else _text_of(example)
        rows.append(Row(_label(example["label"], data.label_names, data.target), original, shown[index]))
    return rows


def spread_over_classes(labels: Sequence[Any], count: int) -> list[int]:
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
    turns = [
        (turn, number) for turn, indices in enumerate(by_label.values()) for number in range(len(indices))
    ]
    groups = list(by_label.values())
    ordered = sorted(turns, key=lambda pair: (pair[1], pair[0]))
    return [groups[turn][number] for turn, number in ordered[:count]]


def _text_of(example: dict[str, Any]) -> str:
    return "\n".join(example[name] for name in ("text", "text_pair") if name in example)


def _label(label: Any, names: Sequence[str], target: str) -> str:
    if not TARGETS[target].has_classes:
        return f"{label:g}"
    return ", ".join(names[index] for index in (label if isinstance(label, list) else [label]))


def _picture(pixels: torch.Tensor) -> Image.Image:
    """Return a model input [3, height, width] as an image; normalized values are rescaled to the range 0 to 255."""
    if pixels.dtype != torch.uint8:
        low, high = pixels.amin(), pixels.amax()
        pixels = ((pixels - low) / (high - low).clamp_min(1e-6) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw a row for each example: the original with its label, then its versions. Columns have a title.

    Args:
        rows: Examples whose originals and versions are RGB images.
    """
    font = ImageFont.load_default(13)
    columns = 1 + max((len(row.versions) for row in rows), default=0)
    height = CELL + LINE + GAP
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + LINE + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    titles = ["original", *(f"epoch {number}" for number in range(1, columns))]
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP), GAP), title, fill="black", font=font)
    for number, row in enumerate(rows):
        top = GAP + LINE + number * height
        label = row.label if len(row.label) <= LONGEST else f"{row.label[: LONGEST - 1]}…"
        draw.text((GAP, top + CELL), label, fill="black", font=font)
        for column, image in enumerate([row.original, *row.versions]):
            small = image.copy()
            small.thumbnail((CELL, CELL))
            left = GAP + column * (CELL + GAP)
            sheet.paste(small, (left, top))
            # without an outline the edge of a white image would not be visible
            draw.rectangle((left - 1, top - 1, left + small.width, top + small.height), outline="lightgrey")
    return sheet


def text_page(rows: Sequence[Row], title: str) -> str:
    """Return an HTML page with a row for each example: label, original, and the versions decoded from tokens."""
    columns = max((len(row.versions) for row in rows), default=0)
    headings = ["label", "original", *(f"epoch {number}" for number in range(1, columns + 1))]
    lines = [[row.label, row.original, *row.versions] for row in rows]
    return PAGE.format(
        title=escape(title),
        headings="".join(f"<th>{escape(heading)}</th>" for heading in headings),
        rows="\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
        ),
    )
