"""The recipes that come with the package, and the JSON Schema by which editors check recipes."""

import re
from pathlib import Path
from types import NoneType

import pytest

from hf_finetune.recipe.load import dump_recipe, json_schema, load_recipe, parse_recipe
from hf_finetune.recipe.shipped import shipped_recipes
from hf_finetune.recipe.yaml_text import read_yaml

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.parent != FOLDER / "candidates")
NAMES = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FILES]
KEYWORDS = {
    "$defs",
    "$ref",
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minProperties",
    "minLength",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
}
KINDS = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": NoneType,
}


def is_kind(value, kind):
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, KINDS[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))


def complaints(value, schema, root, place="recipe"):
    """Return the violations of the part of JSON Schema that pydantic writes for recipes."""
    assert schema.keys() <= KEYWORDS, f"teach this function {schema.keys() - KEYWORDS}"
    if "$ref" in schema:
        yield from complaints(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, place)
    if "anyOf" in schema and all([*complaints(value, one, root, place)] for one in schema["anyOf"]):
        yield f"{place}: {value!r} fits none of its forms"
    if "oneOf" in schema:
        fitting = [one for one in schema["oneOf"] if not [*complaints(value, one, root, place)]]
        if len(fitting) != 1:
            yield f"{place} fits {len(fitting)} forms and not one"
    if "not" in schema and not [*complaints(value, schema["not"], root, place)]:
        yield f"{place}: {value!r} is not allowed"
    kinds = schema.get("type", [])
    if kinds and not any(is_kind(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{place}: {value!r} is no {kinds}"
        return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{place}: {value!r} is not allowed"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{place}: {value!r} does not match"
    if isinstance(value, int | float) and (
        value < schema.get("minimum", value)
        or value > schema.get("maximum", value)
        or value <= schema.get("exclusiveMinimum", value - 1)
        or value >= schema.get("exclusiveMaximum", value + 1)
        or value % schema.get("multipleOf", value or 1)
    ):
        yield f"{place}: {value!r} is out of range"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{place}: too short"
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{place}: too long"
        for index, entry in enumerate(value):
            yield from complaints(entry, schema.get("items", {}), root, f"{place}[{index}]")
    if isinstance(value, dict):
        if len(value) < schema.get("minProperties", 0):
            yield f"{place}: too few"
        yield from (f"{place}.{name} is missing" for name in schema.get("required", []) if name not in value)
        others = schema.get("additionalProperties", {})
        for name, entry in value.items():
            inner = schema.get("properties", {}).get(name, others)
            if inner is False:
                yield f"{place}.{name} is unknown"
            else:
                yield from complaints(entry, inner, root, f"{place}.{name}")


def test_every_file_is_a_shipped_recipe():
    assert {"image/food101-resnet50", "image/food101-vit", "image/vit-folder"} <= set(NAMES)
    assert {"text/imdb-bert", "text/reviews-csv", "text/ratings-csv", "text/orders-csv"} <= set(NAMES)
    assert {path.suffix for path in FILES} == {".yaml"}
    assert list(shipped_recipes()) == sorted(NAMES)
    assert len(shipped_recipes()) == len(FILES) > 0


@pytest.mark.parametrize("name", NAMES)
def test_it_validates_and_survives_being_written_out(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe == load_recipe(FOLDER / f"{name}.yaml")
    again = tmp_path / "recipe.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_its_header_has_the_command_and_the_measured_score_or_the_reason_for_none(name):
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = "\n".join(lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))])
    assert re.search(rf"hf-finetune run (recipes/)?{name}(\.yaml)?\b", head)
    assert re.search(
        r"Test (accuracy|error|NDCG|HR@10|ROC AUC|WER|MASE): (not measured yet; \S|depends on your data; \S|[01]\.\d)",
        head,
    )
    assert not re.search(r"@\w+@", head)  # a placeholder that the user must fill in
    assert len(lines) < 40


@pytest.mark.parametrize("name", NAMES)
def test_the_json_schema_accepts_it_as_written_and_written_out(name):
    schema = json_schema()
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert [*complaints(read_yaml(text, name)[0], schema, schema)] == []
    assert [*complaints(read_yaml(dump_recipe(load_recipe(name)), name)[0], schema, schema)] == []


SHORT = {
    "task": "image-classification",
    "model": "x",
    "data": "x",
    "metrics": "accuracy",
    "stages": [
        {
            "train": ["head", "norms"],
            "epochs": 1,
            "lr": 1,
            "optimizer": "sgd",
            "schedule": "cosine",
            "warmup": 0.1,
            "early_stopping": 3,
            "best": "accuracy",
        }
    ],
}


def test_the_json_schema_accepts_the_shorthands_that_the_reader_accepts():
    schema = json_schema()
    assert [*complaints(SHORT, schema, schema)] == []
    parse_recipe(SHORT)


PER_GROUP = {
    "lr": {"head": 0.1, "backbone": [1e-5, 1e-4]},
    "schedule": {"head": "linear", "backbone": {"name": "polynomial", "power": 2}},
}


@pytest.mark.parametrize(
    "change",
    [
        {"stages": [{**SHORT["stages"][0], **PER_GROUP}]},
        {"stages": [{**SHORT["stages"][0], "lr": {"head": 0.1, "backbone": 0.1}}]},
        {"strategy": "gradual_unfreeze"},
        {"strategy": {"name": "gradual_unfreeze", "groups_per_stage": 2, "max_steps": 3, **PER_GROUP}},
    ],
)
def test_the_json_schema_accepts_rates_and_schedules_by_group_and_a_strategy(change):
    recipe = {field: value for field, value in SHORT.items() if field != "stages"} | change
    schema = json_schema()
    assert [*complaints(recipe, schema, schema)] == []
    written_out = read_yaml(dump_recipe(parse_recipe(recipe)), "recipe")[0]
    assert [*complaints(written_out, schema, schema)] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sed": 1}, "recipe.sed is unknown"),
        ({"seed": -1}, "recipe.seed: -1 is out of range"),
        ({"task": "audio"}, "recipe.task: 'audio' is not allowed"),
        ({"stages": []}, "recipe.stages: too short"),
        ({"strategy": "gradual_unfreeze"}, "recipe fits 0 forms and not one"),
        ({"model": 5}, "recipe.model: 5 fits none of its forms"),
    ],
)
def test_the_json_schema_and_the_reader_refuse_the_same_recipes(change, expected):
    schema = json_schema()
    assert [*complaints({**SHORT, **change}, schema, schema)] == [expected]


def test_the_json_schema_has_a_title_and_describes_every_field():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "hf-finetune recipe"
    assert list(schema["properties"])[:4] == ["task", "model", "data", "stages"]
    objects = [form for part in schema["$defs"].values() for form in [part, *part.get("anyOf", [])]]
    described = [field for form in objects for field in form.get("properties", {}).values()]
    assert len(described) > 40
    assert all(field.get("description") for field in [*described, *schema["properties"].values()])


def test_recipes_are_found_inside_an_installed_package_first(tmp_path, monkeypatch):
    package = tmp_path / "hf_finetune"
    package.mkdir()
    (tmp_path / "recipes" / "text").mkdir(parents=True)
    (tmp_path / "recipes" / "text" / "beside.yaml").touch()
    monkeypatch.setattr("hf_finetune.recipe.shipped.files", lambda name: tmp_path / name)
    assert dict(shipped_recipes()) == {}, "a folder called recipes that is not our checkout's"
    (tmp_path / "pyproject.toml").touch()
    assert dict(shipped_recipes()) == {"text/beside": tmp_path / "recipes" / "text" / "beside.yaml"}
    (package / "shipped_recipes").mkdir()
    (package / "shipped_recipes" / "inside.yaml").touch()
    assert dict(shipped_recipes()) == {"inside": package / "shipped_recipes" / "inside.yaml"}
