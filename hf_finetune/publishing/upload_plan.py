"""What of a run is published: a list of what may go, and a search for what may not."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.head_spec import CODE
from hf_finetune.publishing.portable_recipe import LOCAL, RECIPE, published_recipe, run_recipe
from hf_finetune.recipe import dump_recipe
from hf_finetune.training.manifest import read_manifest

__all__ = [
    "ALLOWED",
    "THIS_MODEL",
    "Upload",
    "check_finished",
    "check_private",
    "collect",
    "is_allowed",
]

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
CARD = "README.md"
ALLOWED = (
    *WEIGHTS,
    "model.safetensors.index.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    CARD,
    CODE.name,
)
"""Names in ``RUN/model`` that are published; whatever else lies there stays. Beside them goes the recipe."""

THIS_MODEL = "FOLDER OR NAME OF THIS MODEL"
"""In a card, as long as the model has no name."""
NOTE = f"# What begins with {LOCAL} lay on a local disk.\n"
SECRET_NAMES = ("_TOKEN", "_KEY", "_SECRET")
SHORTEST_SECRET = 8
"""Length from which on a value is a secret. A shorter one, such as 1 or true, stands in any text."""
HUB_TOKEN = re.compile(rb"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
MANY = 10
"""Number of places that are named one by one."""


@dataclass(frozen=True)
class Upload:
    """A file to be published.

    Attributes:
        name: Its path in the repository.
        source: The file, or its content.
        size: In bytes.
    """

    name: str
    source: Path | bytes
    size: int


def check_finished(run: Path) -> None:
    """Make sure that a folder is a run, all of whose stages are done, with a model to publish.

    Raises:
        InputError: If it is not.
    """
    place = str(run)
    if not (run / "manifest.json").is_file():
        found = "a folder without manifest.json" if run.is_dir() else "a path where no folder is"
        repair = "Give the folder that `hf-finetune run` wrote, not the model in it."
        raise InputError(Problem(place, "must be the folder of a run", found, repair))
    manifest = read_manifest(run / "manifest.json")
    open_stages = [record.name for record in manifest.stages if record.state != "done"]
    if open_stages or manifest.state != "done":
        found = f"stages not done: {', '.join(open_stages)}" if open_stages else "no evaluation yet"
        repair = f"Finish it: hf-finetune run {run / RECIPE} --output-dir {run} --resume."
        raise InputError(Problem(place, "must be a finished run", found, repair))
    if not (run / "model" / "config.json").is_file():
        adapter = (run / "adapter").is_dir()
        found = "an adapter alone" if adapter else "no model/config.json"
        repair = "Run it again with model.adapter.save: merged, or both." if adapter else ""
        tasks = sorted(str(path) for path in (run / "tasks").glob("*"))
        if tasks:
            found, repair = "those of several tasks", f"Publish each by itself: {' or '.join(tasks)}."
        raise InputError(Problem(place, "must hold a model", found, repair))


def is_allowed(name: str) -> bool:
    """Say whether a file of this name may be published."""
    return name == RECIPE or any(fnmatch(name, pattern) for pattern in ALLOWED)


def collect(run: Path, repository: str) -> tuple[list[Upload], list[str]]:
    """List what is published of a finished run. The card gets the name under which the model is published.

    Args:
        run: The run directory.
        repository: ``NAMESPACE/NAME``.

    Returns:
        The files, and the names of what lies in ``RUN/model`` and stays.

    Raises:
        InputError: If the code of the head is not that of this package.
    """
    uploads, left = [], []
    code = run / "model" / CODE.name
    if code.is_file() and code.read_bytes() != CODE.read_bytes():
        repair = "Others will run it: publish with the version of hf-finetune that wrote it."
        raise InputError(Problem(str(code), "must be the file of this version", "another one", repair))
    for file in sorted((run / "model").iterdir()):
        if not file.is_file() or file.is_symlink() or not is_allowed(file.name) or file.name == RECIPE:
            left.append(file.name)
        elif file.name == CARD:
            text = file.read_bytes().replace(THIS_MODEL.encode(), repository.encode())
            uploads.append(Upload(CARD, text, len(text)))
        else:
            uploads.append(Upload(file.name, file, file.stat().st_size))
    if (run / RECIPE).is_file():
        recipe = (NOTE + dump_recipe(published_recipe(run))).encode()
        uploads.append(Upload(RECIPE, recipe, len(recipe)))
    return uploads, left


def check_private(uploads: Sequence[Upload], run: Path, environment: Mapping[str, str] | None = None) -> None:
    """Look for tokens and for this machine's paths in all that is to be published.

    Args:
        uploads: The files. Of weights only the header is text.
        run: The run directory, which no file may name.
        environment: Whose variables named ..._TOKEN, ..._KEY and ..._SECRET no file may hold; None is this process's.
    Raises:
        InputError: With file and line of each. The value of a secret is not repeated.
    """
    variables = os.environ if environment is None else environment
    secrets = {
        name: value.strip().encode()
        for name, value in variables.items()
        if name.upper().endswith(SECRET_NAMES) and len(value.strip()) >= SHORTEST_SECRET
    }
    paths = _path_patterns(_local_paths(run))
    problems = [problem for upload in uploads for problem in _findings(upload, secrets, paths)]
    if len(problems) > MANY:
        more = Problem("The other files and lines", "must hold none either", f"{len(problems) - MANY} more")
        problems = [*problems[:MANY], more]
    if problems:
        raise InputError(problems)


def _findings(
    upload: Upload, secrets: Mapping[str, bytes], paths: Mapping[str, re.Pattern[bytes]]
) -> Iterator[Problem]:
    repair = "Take it out and publish again; nothing was sent."
    for number, line in enumerate(_lines(upload), 1):
        place = f"{upload.name}, line {number}"
        names = [f"the value of {name}" for name, value in secrets.items() if value in line]
        if not names and HUB_TOKEN.search(line):
            names = ["a token of the Hub"]
        if names:
            yield Problem(place, "must not hold a secret", ", ".join(names), repair)
        for path, pattern in paths.items():
            if pattern.search(line):
                yield Problem(place, "must not name a folder of this machine", repr(path), repair)
                break


def _lines(upload: Upload) -> list[bytes]:
    if isinstance(upload.source, bytes):
        return upload.source.splitlines()
    if not any(fnmatch(upload.name, pattern) for pattern in WEIGHTS):
        return upload.source.read_bytes().splitlines()
    with upload.source.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return [stream.read(min(size, upload.size))]


def _local_paths(run: Path) -> list[str]:
    """List the folders of this machine that would tell about it, the longest first."""
    folders = [run, Path.cwd(), Path.home()]
    folders += [Path(os.environ[name]) for name in ("HF_HOME", "HF_HUB_CACHE") if os.environ.get(name)]
    if (run / RECIPE).is_file():
        recipe = run_recipe(run)
        teachers = [stage.teacher for stage in recipe.stages if stage.teacher is not None]
        named = (recipe.model.path, recipe.data.path, *(teacher.path for teacher in teachers))
        folders += [Path(path) for path in named if Path(path).is_absolute()]
    found = {str(way) for folder in folders for way in (folder.absolute(), folder.resolve())}
    return sorted((path for path in found if len(Path(path).parts) > 1), key=lambda path: (-len(path), path))


def _path_patterns(paths: Sequence[str]) -> dict[str, re.Pattern[bytes]]:
    """Match a path as a text or a JSON file writes it; /home/me is not found in /home/meg, nor in a web address."""

    def pattern(path: str) -> re.Pattern[bytes]:
        ways = "|".join(re.escape(way) for way in dict.fromkeys((path, json.dumps(path)[1:-1])))
        return re.compile(rf"(?<![\w.~-])(?:{ways})(?![\w-])".encode())

    return {path: pattern(path) for path in paths}
