"""Recipes read from files and written to files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.recipe.messages import problems_of
from hf_finetune.recipe.multitask import MULTI_TASK, MultiTaskRecipe, recipe_class, task_problems
from hf_finetune.recipe.overrides import Override, apply_override, read_override
from hf_finetune.recipe.rules import rule_problems, shown
from hf_finetune.recipe.schema import Recipe, SpeedSpec
from hf_finetune.recipe.shipped import find_shipped, shipped_recipes
from hf_finetune.recipe.strict_model import parts
from hf_finetune.recipe.yaml_text import MOST_BYTES, read_yaml, write_yaml

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
    """Fields of a recipe are wrong.

    Args:
        problems: All of them.
        content: The recipe's fields as they were read, changes included.
    """

    def __init__(self, problems: Iterable[Problem], content: Any):
        super().__init__(problems)
        self.content = content


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a file or from those that come with the package.

    Paths of a local model or local data become absolute; relative ones are looked up in the current folder,
    then in the recipe's.

    Args:
        source: Path of a YAML file, or name of a shipped recipe: ``text/imdb-bert``, or ``imdb-bert`` if
            only one ends so.
        overrides: Fields to change, as ``KEY=VALUE`` with a dotted path: ``stages.0.lr=0.02``.

    Raises:
        InputError: If the recipe cannot be found or read, or with everything that is wrong in it.
    """
    path = find_recipe(source)
    text = _read_text(path)
    try:
        content, problems = read_yaml(text, str(path))
    except InputError as error:
        raise InputError([*error.problems, *_read_overrides(overrides)[1]]) from error
    if content is None:
        raise InputError(
            Problem(str(path), "must hold a recipe", "an empty file", "Begin with task, model, data, stages.")
        )
    recipe = _parse(content, overrides, problems, str(path))
    return resolve_paths(recipe, [Path.cwd(), path.parent])


def parse_recipe(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Make a recipe of plain mappings and lists, with the shorthands of a recipe file.

    Args:
        content: The recipe's fields.
        overrides: Fields to change, as ``KEY=VALUE``.

    Raises:
        InputError: With everything that is wrong in it.
    """
    return _parse(content, overrides, [], "recipe")


def resolve_paths(recipe: Recipe, folders: Sequence[Path]) -> Recipe:
    """Make the paths of local models and of local data absolute; a Hub id stays as it is.

    Args:
        recipe: The recipe.
        folders: Where relative paths are looked up, in this order.
    """
    changes: dict[str, Any] = {}
    if isinstance(recipe, MultiTaskRecipe):
        tasks = {name: (one, _resolved(one.data, folders)) for name, one in recipe.tasks.items()}
        changes["tasks"] = {
            name: one.model_copy(update={"data": data}) for name, (one, data) in tasks.items()
        }
    own_data = () if isinstance(recipe, MultiTaskRecipe) else (("data", recipe.data),)
    for name, part in (("model", recipe.model), *own_data):
        if (found := _resolved(part, folders)) is not part:
            changes[name] = found
    if recipe.domain_adaptation is not None:
        changes["domain_adaptation"] = _resolved(recipe.domain_adaptation, folders, "target")
    if any(stage.teacher for stage in recipe.stages):
        changes["stages"] = tuple(_taught_from(stage, folders) for stage in recipe.stages)
    if recipe.strategy is not None and recipe.strategy.teacher is not None:
        changes["strategy"] = _taught_from(recipe.strategy, folders)
    return recipe.model_copy(update=changes)


def _resolved(part: Any, folders: Sequence[Path], field: str = "path") -> Any:
    candidates = [folder.absolute() / _expanded(getattr(part, field)) for folder in folders]
    found = next((path for path in candidates if _exists(path)), None)
    return part if found is None else part.model_copy(update={field: str(found)})


def _taught_from(stage: Any, folders: Sequence[Path]) -> Any:
    if stage.teacher is None:
        return stage
    return stage.model_copy(update={"teacher": _resolved(stage.teacher, folders)})


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML, every default written out, so that it loads to an equal recipe."""
    without = {"stages"} if recipe.strategy is not None else set()
    return write_yaml(recipe.model_dump(mode="json", exclude=without))


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of a recipe file, by which editors complete and check recipes."""
    schema, several = Recipe.model_json_schema(), MultiTaskRecipe.model_json_schema()
    schema["$defs"] = {**several["$defs"], **schema["$defs"]}
    by_name = {part.__name__: part for part in parts() if part.shorthand}
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
        "properties": {**several["properties"], **schema["properties"], **_of_either(schema, several)},
        "title": "hf-finetune recipe",
        "oneOf": [
            _merged(tasks, stages)
            for tasks in _forms_of_tasks(schema, several)
            for stages in (_given("stages", "strategy"), _given("strategy", "stages"))
        ],
    }


def _of_either(schema: dict[str, Any], several: dict[str, Any]) -> dict[str, Any]:
    """Give the fields that are other ones in a recipe of several tasks, as they are in either."""
    task, data = schema["properties"]["task"], schema["properties"]["data"]
    forms = [_bare(data), _bare(several["properties"]["data"])]
    return {
        "task": {**task, "enum": [*task["enum"], MULTI_TASK]},
        "data": {"description": data["description"], "anyOf": forms},
    }


def _bare(field: dict[str, Any]) -> dict[str, Any]:
    return {"$ref": field["$ref"]}


def _forms_of_tasks(schema: dict[str, Any], several: dict[str, Any]) -> list[dict[str, Any]]:
    """Say in JSON Schema what a recipe of one task has, and what one of several."""
    own = [name for name in several["properties"] if name not in schema["properties"]]
    one = {"task": {"not": {"const": MULTI_TASK}}, "data": _bare(schema["properties"]["data"])}
    many = {"task": {"const": MULTI_TASK}, "data": _bare(several["properties"]["data"])}
    return [
        {"required": ["data"], "properties": {**one, **dict.fromkeys(own, False)}},
        {"required": ["tasks"], "properties": many},
    ]


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        "required": [*one["required"], *other["required"]],
        "properties": {**one["properties"], **other["properties"]},
    }


def _given(one: str, other: str) -> dict[str, Any]:
    """Say in JSON Schema that one field is given, and the other is not, or null."""
    null = {"type": "null"}
    return {"required": [one], "properties": {one: {"not": null}, other: null}}


def _parse(content: Any, overrides: Sequence[str], problems: Sequence[Problem], origin: str) -> Recipe:
    if not isinstance(content, Mapping):
        repair = "Begin with task, model, data, stages."
        raise InputError(
            [*problems, Problem(origin, "must hold a mapping of fields", shown(content), repair)]
        )
    found, root = list(problems), recipe_class(content)
    changes, wrong_overrides = _read_overrides(overrides, root)
    found.extend(wrong_overrides)
    for override in changes:
        try:
            content = apply_override(content, override, root)
        except InputError as error:
            found.extend(error.problems)
    root = recipe_class(content)  # an override may have named the task
    try:
        recipe = root.model_validate(dict(content))
    except ValidationError as error:
        found += [*problems_of(error, root), *rule_problems(content), *task_problems(content)]
        # rules that ran in the schema too show values as they were read there (1.0); keep those as given (1)
        wrong = {(problem.place, problem.rule): problem for problem in found}.values()
        raise RecipeError(wrong, content) from error
    if found:
        raise RecipeError(found, content)
    return recipe


def _read_overrides(
    texts: Sequence[str], root: type[Recipe] = Recipe
) -> tuple[list[Override], list[Problem]]:
    overrides: list[Override] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            overrides.append(read_override(text, root))
        except InputError as error:
            problems.extend(error.problems)
    return overrides, problems


def find_recipe(source: str | Path) -> Path:
    """Find a recipe's file.

    Args:
        source: Its path, or the name of a shipped one, as for ``load_recipe``.

    Raises:
        InputError: If there is none, or the name fits several.
    """
    path = _expanded(source)
    if _exists(path) and not path.is_dir():
        return path
    if isinstance(source, str) and (names := find_shipped(source)):
        if len(names) > 1:
            raise InputError(
                Problem(source, "must name one recipe", repair=f"It could be {' or '.join(names)}.")
            )
        return shipped_recipes()[names[0]]
    if _exists(path):
        inside = ", ".join(_recipes_in(path)) or "no recipe"
        raise InputError(Problem(str(path), "must be a recipe file", "a folder", f"It holds {inside}."))
    if isinstance(source, Path) or path.suffix in SUFFIXES:
        repair = (
            nearest(path.name, _recipes_in(path.parent)) or f"There is no recipe in {path.parent.absolute()}."
        )
        raise InputError(Problem(str(path), "must exist", repair=repair))
    rule = "must be a recipe file or the name of a shipped recipe"
    raise InputError(Problem(shown(source), rule, repair=_nearest_shipped(str(source))))


def copy_recipe(source: str | Path, dest: str | Path) -> Path:
    """Copy a recipe, to change it. Returns the new file.

    Args:
        source: As for ``find_recipe``.
        dest: A file that does not exist, or a folder that does.

    Raises:
        InputError: If there is no such recipe, or something is in the copy's place.
    """
    path, target = find_recipe(source), _expanded(dest)
    target = target / path.name if target.is_dir() else target
    if target.exists():
        raise InputError(
            Problem(str(target), "must not exist", repair="Nothing is overwritten; name another file.")
        )
    if not target.parent.is_dir():
        raise InputError(Problem(str(target.parent), "must be a folder"))
    target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return target


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        return Path(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than file names can be, or behind a folder that may not be entered
        return False


def _recipes_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError:
        return []


def _nearest_shipped(name: str) -> str:
    names = list(shipped_recipes())
    for full in names:
        if nearest(name, [full.rpartition("/")[2]]).startswith("Nearest"):
            return f"Nearest: {full!r}."
    return nearest(name, names)


def _size_of(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "an endless one"


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            rule = f"must be a recipe of at most {MOST_BYTES:,} bytes"
            raise InputError(Problem(str(path), rule, _size_of(path), "Is it another file?"))
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(Problem(str(path), "must be readable", error.strerror or str(error))) from error
    except UnicodeDecodeError as error:
        got = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise InputError(Problem(str(path), "must be UTF-8 text", got, "Save it again as UTF-8.")) from error
