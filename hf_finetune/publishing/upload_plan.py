"""Files of a run to publish: a list of allowed names, and a search for secrets and local paths."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.head_spec import CODE
from hf_finetune.publishing.portable_recipe import LOCAL_PREFIX, RECIPE_FILE, published_recipe, run_recipe
from hf_finetune.recipe.load import dump_recipe
from hf_finetune.training.manifest import read_manifest

__all__ = [
    "ALLOWED",
    "MODEL_PLACEHOLDER",
    "Upload",
    "check_finished",
    "check_no_secrets",
    "collect_uploads",
    "is_allowed",
]

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
CARD_FILE = "README.md"
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
    CARD_FILE,
    CODE.name,
)
"""Patterns of the names in ``RUN/model`` that are published, in addition to the recipe; no other file is."""

MODEL_PLACEHOLDER = "FOLDER OR NAME OF THIS MODEL"
"""Placeholder in a model card for the name under which the model is published."""
RECIPE_NOTE = f"# Paths that begin with {LOCAL_PREFIX} were on a local disk: replace them.\n"
SECRET_NAMES = ("_TOKEN", "_KEY", "_SECRET")
SHORTEST_SECRET = 8
"""Minimum length of a secret. A shorter value, such as 1 or true, occurs in any text."""
HUB_TOKEN = re.compile(rb"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
MAX_PROBLEMS = 10
"""Maximum number of problems that are listed individually."""


@dataclass(frozen=True)
class Upload:
    """File to publish.

    Attributes:
        name: Path in the repository.
        source: Path of the file on disk, or its content.
        size: Size in bytes.
    """

    name: str
    source: Path | bytes
    size: int


def check_finished(run: Path) -> None:
    """Check that a folder is a finished run with a model to publish.

    Args:
        run: Run directory.

    Raises:
        InputError: If the folder is not a run, a stage or the evaluation is not finished, or there is no model.
    """
    place = str(run)
    if not (run / "manifest.json").is_file():
        value = "a folder without manifest.json" if run.is_dir() else "a folder that does not exist"
        repair = "Pass the folder that `hf-finetune run` wrote, not the model in it."
        raise InputError(Problem(place, "must be a run directory", value, repair))
    manifest = read_manifest(run / "manifest.json")
    unfinished_stages = [record.name for record in manifest.stages if record.state != "done"]
    if unfinished_stages or manifest.state != "done":
        stages = ", ".join(unfinished_stages)
        value = f"unfinished stages: {stages}" if stages else "no evaluation yet"
        repair = f"Finish it: hf-finetune run {run / RECIPE_FILE} --output-dir {run} --resume."
        raise InputError(Problem(place, "must be a finished run", value, repair))
    if not (run / "model" / "config.json").is_file():
        adapter = (run / "adapter").is_dir()
        value = "only an adapter" if adapter else "no model/config.json"
        repair = "Run it again with model.adapter.save: merged, or both." if adapter else ""
        tasks = sorted(str(path) for path in (run / "tasks").glob("*"))
        if tasks:
            value, repair = "models of several tasks", f"Publish each one separately: {' or '.join(tasks)}."
        raise InputError(Problem(place, "must contain a model", value, repair))


def is_allowed(name: str) -> bool:
    """Return whether a file with this name may be published."""
    return name == RECIPE_FILE or any(fnmatch(name, pattern) for pattern in ALLOWED)


def collect_uploads(run: Path, repository: str) -> tuple[list[Upload], list[str]]:
    """Return the files to publish of a finished run, with the repository's name filled into the model card.

    Args:
        run: Run directory.
        repository: Repository to publish to, as ``NAMESPACE/NAME``.

    Returns:
        Files to upload, and names in ``RUN/model`` that are not published.

    Raises:
        InputError: If the code of the head differs from that of this package.
    """
    uploads, skipped = [], []
    code = run / "model" / CODE.name
    if code.is_file() and code.read_bytes() != CODE.read_bytes():
        repair = "Publish with the version of hf-finetune that wrote it: users of the model will run it."
        raise InputError(
            Problem(str(code), "must be the file of the installed hf-finetune", "another file", repair)
        )
    for file in sorted((run / "model").iterdir()):
        if not file.is_file() or file.is_symlink() or not is_allowed(file.name) or file.name == RECIPE_FILE:
            skipped.append(file.name)
        elif file.name == CARD_FILE:
            text = file.read_bytes().replace(MODEL_PLACEHOLDER.encode(), repository.encode())
            uploads.append(Upload(CARD_FILE, text, len(text)))
        else:
            uploads.append(Upload(file.name, file, file.stat().st_size))
    if (run / RECIPE_FILE).is_file():
        recipe = (RECIPE_NOTE + dump_recipe(published_recipe(run))).encode()
        uploads.append(Upload(RECIPE_FILE, recipe, len(recipe)))
    return uploads, skipped


def check_no_secrets(
    uploads: Sequence[Upload], run: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Check that the files to publish contain no secrets and no paths of this machine.

    Args:
        uploads: Files to check. Only the header of a weights file is searched.
        run: Run directory; its path must not occur in the files.
        environment: Environment variables; the values of those named ..._TOKEN, ..._KEY and ..._SECRET are secrets.
            None is the environment of this process.

    Raises:
        InputError: With the file and line of each problem; the value of a secret is not repeated.
    """
    variables = os.environ if environment is None else environment
    secrets = {
        name: value.strip().encode()
        for name, value in variables.items()
        if name.upper().endswith(SECRET_NAMES) and len(value.strip()) >= SHORTEST_SECRET
    }
    paths = _path_patterns(_local_paths(run))
    problems = [problem for upload in uploads for problem in _find_secrets(upload, secrets, paths)]
    if len(problems) > MAX_PROBLEMS:
        more = Problem(
            f"{len(problems) - MAX_PROBLEMS} more lines", "must not contain secrets or local paths"
        )
        problems = [*problems[:MAX_PROBLEMS], more]
    if problems:
        raise InputError(problems)


def _find_secrets(
    upload: Upload, secrets: Mapping[str, bytes], paths: Mapping[str, re.Pattern[bytes]]
) -> Iterator[Problem]:
    """Yield a problem for each line of a file with a secret or a local path."""
    repair = "Remove it and publish again; nothing was sent."
    for number, line in enumerate(_lines(upload), 1):
        place = f"{upload.name}, line {number}"
        names = [f"the value of {name}" for name, value in secrets.items() if value in line]
        if not names and HUB_TOKEN.search(line):
            names = ["a token of the Hub"]
        if names:
            yield Problem(place, "must not contain a secret", ", ".join(names), repair)
        for path, pattern in paths.items():
            if pattern.search(line):
                yield Problem(place, "must not contain a local path", repr(path), repair)
                break  # the longest path is enough


def _lines(upload: Upload) -> list[bytes]:
    """Return the lines of a text file; for a weights file, only its header in JSON."""
    if isinstance(upload.source, bytes):
        return upload.source.splitlines()
    if not any(fnmatch(upload.name, pattern) for pattern in WEIGHTS):
        return upload.source.read_bytes().splitlines()
    with upload.source.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return [stream.read(min(size, upload.size))]


def _local_paths(run: Path) -> list[str]:
    """Return the local folders whose paths must not be published, the longest first."""
    folders = [run, Path.cwd(), Path.home()]
    folders += [Path(os.environ[name]) for name in ("HF_HOME", "HF_HUB_CACHE") if os.environ.get(name)]
    if (run / RECIPE_FILE).is_file():
        recipe = run_recipe(run)
        teachers = [spec.teacher for spec in recipe.stages if spec.teacher is not None]
        named = (recipe.model.path, recipe.data.path, *(teacher.path for teacher in teachers))
        folders += [Path(path) for path in named if Path(path).is_absolute()]
    paths = {str(variant) for folder in folders for variant in (folder.absolute(), folder.resolve())}
    return sorted((path for path in paths if len(Path(path).parts) > 1), key=lambda path: (-len(path), path))


def _path_patterns(paths: Sequence[str]) -> dict[str, re.Pattern[bytes]]:
    """Return a pattern for each path, which matches it in plain text and in JSON.

    /home/me is found neither in /home/meg nor in a URL.
    """
    patterns = {}
    for path in paths:
        spellings = "|".join(map(re.escape, dict.fromkeys((path, json.dumps(path)[1:-1]))))
        patterns[path] = re.compile(rf"(?<![\w.~-])(?:{spellings})(?![\w-])".encode())
    return patterns
