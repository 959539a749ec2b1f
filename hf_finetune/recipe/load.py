"""Loading and validation of recipe files, and their output as YAML and JSON Schema."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hf_finetune.errors import InputError, Problem, short_repr, suggestion
from hf_finetune.fields.base import leaf_parts
from hf_finetune.recipe.messages import problems_of
from hf_finetune.recipe.multitask import MULTI_TASK, MultiTaskRecipe, recipe_class, task_problems
from hf_finetune.recipe.overrides import Override, apply_override, read_override
from hf_finetune.recipe.rules import rule_problems
from hf_finetune.recipe.schema import Recipe, SingleTaskRecipe
from hf_finetune.recipe.shipped import find_shipped, shipped_recipes
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.yaml_text import MAX_BYTES, read_yaml, write_yaml

__all__ = [
    "RecipeError",
    "copy_recipe",
    "dump_recipe",
    "find_recipe",
    "json_schema",
    "load_recipe",
    "parse_recipe",
    "resolve_paths",
]

SUFFIXES = (".yaml", ".yml")


class RecipeError(InputError):
    """Raised if fields of a recipe are invalid.

    Args:
        problems: All problems of the recipe.
        content: Fields of the recipe as they were read, with overrides applied.
    """

    def __init__(self, problems: Iterable[Problem], content: Any):
        super().__init__(problems)
        self.content = content


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe from a file, or a shipped recipe.

    Paths of local models and data become absolute. Relative paths are resolved against the working directory, then
    against the recipe's folder.

    Args:
        source: Path of a YAML file, or name of a shipped recipe: ``text/imdb-bert``, or ``imdb-bert`` if only one
            name ends with it.
        overrides: Fields to change, as ``KEY=VALUE`` with a dotted path: ``stages.0.lr=0.02``.

    Returns:
        The checked recipe.

    Raises:
        InputError: If the recipe cannot be found or read, or is invalid; with all of its problems.

    Example:
        >>> from hf_finetune import load_recipe
        >>> recipe = load_recipe("reviews.yaml", ["stages.0.lr=0.02", "seed=1"])
        >>> recipe.stages[0].train, recipe.stages[0].lr, recipe.seed
        ('head', 0.02, 1)
    """
    path = find_recipe(source)
    text = _read_text(path)
    try:
        content, problems = read_yaml(text, str(path))
    except InputError as error:
        override_problems = (
            _read_overrides(overrides, root)[1] for root in (SingleTaskRecipe, MultiTaskRecipe)
        )
        raise InputError([*error.problems, *min(override_problems, key=len)]) from error
    if content is None:
        raise InputError(
            Problem(
                str(path),
                "must contain a recipe",
                "an empty file",
                "Start with the fields task, model, data and stages.",
            )
        )
    recipe = _parse(content, overrides, problems, str(path))
    return resolve_paths(recipe, [Path.cwd(), path.parent])


def parse_recipe(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Build a recipe from plain mappings and lists, with the same shorthands as in a recipe file.

    Args:
        content: Fields of the recipe.
        overrides: Fields to change, as ``KEY=VALUE``.

    Returns:
        The checked recipe, in which relative paths of models and data stay as they are.

    Raises:
        InputError: If the recipe is invalid; with all of its problems.

    Example:
        >>> from hf_finetune import InputError, Stage, load_recipe, parse_recipe
        >>> content = load_recipe("reviews.yaml").model_dump(mode="json")
        >>> content["stages"] = [Stage("head", epochs=1, lr=1e-2), {"train": "all", "epochs": 1, "lr": 1e-3}]
        >>> [stage.name for stage in parse_recipe(content).stages]
        ['head', 'all']
        >>> try:
        ...     parse_recipe({**content, "sed": 1}, ["stages.0.lr=-1"])
        ... except InputError as error:
        ...     print([problem.place for problem in error.problems])
        ['stages[0].lr', 'sed']
    """
    return _parse(content, overrides, [], "recipe")


def resolve_paths(recipe: Recipe, folders: Sequence[Path]) -> Recipe:
    """Return a recipe in which the paths of local models and data are absolute; Hub ids are unchanged.

    Args:
        recipe: Recipe whose paths to resolve.
        folders: Folders against which relative paths are resolved; the first in which a path exists is used.
    """

    def resolve(path: str) -> str:
        candidates = [folder.absolute() / _expand_user(path) for folder in folders]
        return str(next(filter(_path_exists, candidates), path))

    return recipe.with_paths(resolve)


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with every default written out, so that it loads to an equal recipe."""
    excluded = {"stages"} if recipe.strategy is not None else set()
    return write_yaml(recipe.model_dump(mode="json", exclude=excluded))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of recipe files, with which editors complete and check recipes."""
    schema = SingleTaskRecipe.model_json_schema()
    multi_task_schema = MultiTaskRecipe.model_json_schema()
    schema["$defs"] = {**multi_task_schema["$defs"], **schema["$defs"]}
    by_name = {part.__name__: part for part in leaf_parts() if part.shorthand}
    for name in by_name.keys() & schema["$defs"].keys():
        full = schema["$defs"][name]
        short = full["properties"][by_name[name].shorthand]
        schema["$defs"][name] = {"description": full["description"], "anyOf": [short, full]}
    full = schema["$defs"][SpeedSpec.__name__]
    schema["$defs"][SpeedSpec.__name__] = {
        "description": full["description"],
        "anyOf": [{"const": "auto"}, full],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "required": [field for field in schema["required"] if field != "data"],
        "properties": {
            **multi_task_schema["properties"],
            **schema["properties"],
            **_shared_fields(schema, multi_task_schema),
        },
        "title": "hf-finetune recipe",
        "description": schema["description"].partition("\n")[0],
        "oneOf": [
            _merge(task_condition, stage_condition)
            for task_condition in _task_conditions(schema, multi_task_schema)
            for stage_condition in (_exactly_one("stages", "strategy"), _exactly_one("strategy", "stages"))
        ],
    }


def _shared_fields(schema: dict[str, Any], multi_task_schema: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of the fields that differ in a multi-task recipe; it allows both forms."""
    task, data = schema["properties"]["task"], schema["properties"]["data"]
    forms = [_reference(data), _reference(multi_task_schema["properties"]["data"])]
    return {
        "task": {**task, "enum": [*task["enum"], MULTI_TASK]},
        "data": {"description": data["description"], "anyOf": forms},
    }


def _reference(field: dict[str, Any]) -> dict[str, Any]:
    return {"$ref": field["$ref"]}


def _task_conditions(schema: dict[str, Any], multi_task_schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON Schema conditions of a single-task recipe and of a multi-task recipe."""
    multi_task_only = [name for name in multi_task_schema["properties"] if name not in schema["properties"]]
    single_task = {"task": {"not": {"const": MULTI_TASK}}, "data": _reference(schema["properties"]["data"])}
    multi_task = {"task": {"const": MULTI_TASK}, "data": _reference(multi_task_schema["properties"]["data"])}
    return [
        {"required": ["data"], "properties": {**single_task, **dict.fromkeys(multi_task_only, False)}},
        {"required": ["tasks"], "properties": multi_task},
    ]


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {
        "required": [*first["required"], *second["required"]],
        "properties": {**first["properties"], **second["properties"]},
    }


def _exactly_one(present: str, absent: str) -> dict[str, Any]:
    """Return the JSON Schema condition that field ``present`` is set, and field ``absent`` is missing or null."""
    null = {"type": "null"}
    return {"required": [present], "properties": {present: {"not": null}, absent: null}}


def _parse(content: Any, overrides: Sequence[str], problems: Sequence[Problem], origin: str) -> Recipe:
    if not isinstance(content, Mapping):
        repair = "Start with the fields task, model, data and stages."
        raise InputError(
            [*problems, Problem(origin, "must contain a mapping of fields", short_repr(content), repair)]
        )
    all_problems = list(problems)
    root = recipe_class({**content, **_task_override(overrides)})
    changes, override_problems = _read_overrides(overrides, root)
    all_problems.extend(override_problems)
    for override in changes:
        try:
            content = apply_override(content, override, root)
        except InputError as error:
            all_problems.extend(error.problems)
    root = recipe_class(content)  # an override may have changed the task
    try:
        recipe = root.model_validate(dict(content))
    except ValidationError as error:
        all_problems += [*problems_of(error, root), *rule_problems(content), *task_problems(content)]
        # the same rule can fail in the schema, with a converted value (1.0), and here: keep the value as written (1)
        deduplicated = {(problem.place, problem.rule): problem for problem in all_problems}.values()
        raise RecipeError(deduplicated, content) from error
    if all_problems:
        raise RecipeError(all_problems, content)
    return recipe


def _task_override(texts: Sequence[str]) -> dict[str, str]:
    """Return the ``task`` that overrides set, which determines the other fields; empty if they set none."""
    pairs = [(key.strip(), value.strip()) for key, _, value in (text.partition("=") for text in texts)]
    return dict(pair for pair in pairs if pair[0] == "task")


def _read_overrides(texts: Sequence[str], root: type[Recipe]) -> tuple[list[Override], list[Problem]]:
    overrides: list[Override] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            overrides.append(read_override(text, root))
        except InputError as error:
            problems.extend(error.problems)
    return overrides, problems


def find_recipe(source: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        source: Path of the file, or name of a shipped recipe, as for ``load_recipe``.

    Raises:
        InputError: If there is no such recipe, or several shipped recipes match the name.
    """
    path = _expand_user(source)
    if _path_exists(path) and not path.is_dir():
        return path
    if isinstance(source, str) and (names := find_shipped(source)):
        if len(names) > 1:
            raise InputError(
                Problem(source, "must match exactly one shipped recipe", repair=f"Use {' or '.join(names)}.")
            )
        return shipped_recipes()[names[0]]
    if _path_exists(path):
        content = ", ".join(_recipes_in(path)) or "no recipe"
        raise InputError(Problem(str(path), "must be a recipe file", "a folder", f"It contains {content}."))
    if isinstance(source, Path) or path.suffix in SUFFIXES:
        repair = (
            suggestion(path.name, _recipes_in(path.parent))
            or f"There is no recipe in {path.parent.absolute()}."
        )
        raise InputError(Problem(str(path), "must exist", repair=repair))
    rule = "must be a recipe file or the name of a shipped recipe"
    raise InputError(Problem(short_repr(source), rule, repair=_nearest_shipped(str(source))))


def copy_recipe(source: str | Path, dest: str | Path) -> Path:
    """Copy a recipe file for editing, and return the path of the copy.

    Args:
        source: Path of the file, or name of a shipped recipe, as for ``load_recipe``.
        dest: File that does not exist yet, or existing folder.

    Raises:
        InputError: If there is no such recipe, the copy would overwrite a file, or its folder does not exist.
    """
    path = find_recipe(source)
    target = _expand_user(dest)
    target = target / path.name if target.is_dir() else target
    if target.exists():
        raise InputError(
            Problem(
                str(target),
                "must not exist",
                repair="Existing files are not overwritten. Choose another name.",
            )
        )
    if not target.parent.is_dir():
        raise InputError(Problem(str(target.parent), "must be a folder"))
    target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return target


def _expand_user(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~user without a home directory on this machine
        return Path(path)


def _path_exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the path is too long, or inside a folder without access
        return False


def _recipes_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError:
        return []


def _nearest_shipped(name: str) -> str:
    names = list(shipped_recipes())
    for full in names:
        if suggestion(name, [full.rpartition("/")[2]]).startswith("Nearest"):
            return f"Nearest: {full!r}."
    return suggestion(name, names)


def _size_of(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "a file of unlimited size"


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            rule = f"must be a recipe of at most {MAX_BYTES:,} bytes"
            raise InputError(Problem(str(path), rule, _size_of(path), "Check the path."))
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(Problem(str(path), "must be readable", error.strerror or str(error))) from error
    except UnicodeDecodeError as error:
        got = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise InputError(Problem(str(path), "must be UTF-8 text", got, "Save it again as UTF-8.")) from error
