"""Steps that spoil a folder, each a function of its path."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import openpyxl
from safetensors.torch import load_file, save_file

__all__ = ["change", "config", "copy", "cut", "delete", "do", "rows", "text", "weights", "workbook", "write"]

Step = Callable[[Path], None]


def do(*steps: Step) -> Step:
    """Run several steps in order."""

    def step(folder: Path) -> None:
        for each in steps:
            each(folder)

    return step


def write(path: str, content: str | bytes) -> Step:
    """Write a file."""

    def step(folder: Path) -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return step


def rows(path: str, *lines: str) -> Step:
    """Write a file of lines."""
    return write(path, "".join(f"{line}\n" for line in lines))


def workbook(path: str, *lines: Sequence[object], formats: Mapping[str, str] | None = None) -> Step:
    """Write an Excel workbook; ``formats`` are the number formats of columns by their letters."""

    def step(folder: Path) -> None:
        book = openpyxl.Workbook()
        for line in lines:
            book.active.append(list(line))
        for letter, number_format in (formats or {}).items():
            for cell in book.active[letter]:
                cell.number_format = number_format
        book.save(folder / path)

    return step


def text(path: str, form: str) -> Step:
    """Rewrite a file: ``{}`` is its old content."""
    return lambda folder: write(path, form.format((folder / path).read_text(encoding="utf-8")))(folder)


def change(path: str, old: str, new: str) -> Step:
    """Replace a part of a file that must be there."""

    def step(folder: Path) -> None:
        content = (folder / path).read_text(encoding="utf-8")
        if old not in content:
            raise ValueError(f"{path} must hold {old!r}.")
        write(path, content.replace(old, new))(folder)

    return step


def copy(source: str, target: str) -> Step:
    """Copy a file, or a folder with its content."""

    def step(folder: Path) -> None:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (folder / source).is_dir() else shutil.copy)(folder / source, folder / target)

    return step


def delete(*paths: str) -> Step:
    """Delete files, or folders with their content."""

    def step(folder: Path) -> None:
        for path in paths:
            (shutil.rmtree if (folder / path).is_dir() else Path.unlink)(folder / path)

    return step


def cut(path: str, size: int) -> Step:
    """Keep the first bytes of a file, as after an interrupted download."""
    return lambda folder: write(path, (folder / path).read_bytes()[:size])(folder)


def config(path: str, **changes: object) -> Step:
    """Change entries of a JSON file."""

    def step(folder: Path) -> None:
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        write(path, json.dumps({**content, **changes}))(folder)

    return step


def weights(path: str, change_them: Callable[[dict], dict]) -> Step:
    """Change the tensors of a safetensors file."""

    def step(folder: Path) -> None:
        tensors = load_file(folder / path)
        save_file(change_them(tensors), folder / path, metadata={"format": "pt"})

    return step
