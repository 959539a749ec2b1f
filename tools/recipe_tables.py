"""Write the tables of recipe fields in docs/recipe.md from the schema, and that of the tasks in README.md.

    python tools/recipe_tables.py [--check]

The table of a part of the schema is between ``<!-- fields: NAME -->`` and ``<!-- end -->``, that of the values which
select the fields of a part after ``<!-- values: NAME -->``, and that of the tasks after ``<!-- tasks -->``. With
``--check``, nothing is written, and the exit code is 1 if a table is not up to date.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_finetune.fields.base import leaf_parts
from hf_finetune.fields.choice import Choice, clause
from hf_finetune.recipe.load import json_schema
from hf_finetune.recipe.multitask import MultiTaskRecipe
from hf_finetune.recipe.schema import Recipe, SingleTaskRecipe
from hf_finetune.tasks import TASKS

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "recipe.md", ROOT / "README.md"
TASKS_TABLE = re.compile(r"^<!-- tasks -->\n.*?^<!-- end -->$", re.M | re.S)
CHOICES = {part.__name__: part.union() for part in leaf_parts() if issubclass(part, Choice)}
"""Union of each option. The table of a union has the fields of all its options."""
UNIONS = {union.__name__: union for union in CHOICES.values()}
"""Union by its name."""
SHORTHANDS = {part.__name__: part.shorthand for part in (*leaf_parts(), *CHOICES.values())}
BROADCAST_VALUES = {"SpeedSpec": "auto"}
"""Value that can be written in place of the fields of a part, and then applies to all of them."""
REPEATS = {
    "StrategySpec": "StageSpec",
    "SharedDataSpec": "DataSpec",
    "TaskDataSpec": "DataSpec",
    "MultiTaskRecipe": "Recipe",
}
"""Parts that repeat fields of another part. Only the fields that differ are documented again."""
LINK_TEXTS = {
    "StageSpec": "stages",
    "SharedDataSpec": "fields for multi-task",
    "RatesSpec": "`{head, backbone}`",
    "SchedulesSpec": "`{head, backbone}`",
}
"""Text of the link to the fields of a part; ``fields`` for all other parts."""
COMPUTED = {
    ("Recipe", "data"): "required",
    ("Recipe", "stages"): "required without `strategy`",
    ("StageSpec", "name"): "from `train`",
    ("ModelSpec", "path"): "required without `new`",
    ("OptimizerSpec", "args"): "`{}`",
    ("TransformSpec", "args"): "`{}`",
}
"""Default of fields without a default in the schema."""

HEADING_OR_TABLE = re.compile(
    r"^#+ ([^\n]+)$|^<!-- (fields|values): (\w+) -->\n.*?^<!-- end -->$", re.M | re.S
)
REFERENCE = re.compile(r"(?<=#/\$defs/)\w+")
CODE = re.compile(
    r"\{.*?\}+"  # {head, backbone}
    r"|(?<![\w/.-])[a-z][a-z0-9]*(?:[._][a-z0-9]+)+(?!\w)"  # weight_decay, data.split.group
    r"|(?:^|(?<=[;:] ))[\w\[\]]+(?= = )"  # the value in "null = inferred"
    r"|--[a-z-]+"  # --trust-remote-code
)
LINK = re.compile(r"\bdocs/(\w+\.md)")
CASE = re.compile(r"([;:]) (?=`[^`]+` = )")
MAX_CASES_PER_LINE = 2
"""Number of cases such as ``null = inferred`` above which each case gets its own line."""
NO_UNIT = re.compile(r" \(no unit\)|(?<=\()no unit; ")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def documented_parts() -> dict[str, Any]:
    """Return the JSON Schema of each part with all of its fields; that of a union instead of its options."""
    names = {name: union.__name__ for name, union in CHOICES.items()}
    text = REFERENCE.sub(lambda match: names.get(match[0], match[0]), json.dumps(json_schema()))
    schema = json.loads(text)
    # a part with a shorthand has two forms
    all_parts = {name: part.get("anyOf", [part])[-1] for name, part in schema["$defs"].items()}
    unions = {union.__name__: union_fields(union, all_parts) for union in CHOICES.values()}
    recipes = {
        "Recipe": recipe_fields(SingleTaskRecipe, schema),
        "MultiTaskRecipe": recipe_fields(MultiTaskRecipe, schema),
    }
    return recipes | {name: all_parts[name] for name in all_parts.keys() - CHOICES.keys()} | unions


def recipe_fields(recipe: type[Recipe], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of the fields of a single-task or multi-task recipe."""
    return {
        "properties": {name: schema["properties"][name] for name in recipe.model_fields},
        "required": [name for name, field in recipe.model_fields.items() if field.is_required()],
    }


def union_fields(union: type[Choice], all_parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a part that has the fields of all options of a union."""
    options, discriminator = union.options(), union.model_fields[union.discriminator]
    schemas = [all_parts[option.__name__] for option in options.values()]
    fields: dict[str, Any] = {}
    for name, spec in (field for schema in schemas for field in schema["properties"].items()):
        names = union.options_with_field(name)
        if name == union.discriminator:
            default = {} if discriminator.is_required() else {"default": discriminator.default}
            fields[name] = {"enum": names, "description": union.meaning(), **default}
        elif names == [*options]:
            fields[name] = spec
        else:
            fields[name] = spec | {
                "description": f"For {' and '.join(names)}: {clause(spec['description'])}."
            }
    required = set.intersection(*(set(schema.get("required", ())) for schema in schemas))
    return {"properties": fields, "required": required}


PARTS = documented_parts()
"""JSON Schema of each part with all of its fields."""


def own_fields(name: str) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each field of a part, without the fields that it repeats."""
    repeated = PARTS[REPEATS[name]]["properties"] if name in REPEATS else {}
    fields: dict[str, dict[str, Any]] = PARTS[name]["properties"]
    return {field: spec for field, spec in fields.items() if repeated.get(field) != spec}


def render(page: str) -> str:
    """Return the page with new tables."""
    anchors = part_anchors(page)
    tables = {"fields": lambda name: fields_table(name, anchors), "values": values_table}
    return HEADING_OR_TABLE.sub(lambda match: tables[match[2]](match[3]) if match[2] else match[0], page)


def with_tasks(page: str) -> str:
    """Return the page with a new table of the tasks."""
    rows = ["| `task` | input | transformers classes |", "|---|---|---|"]
    for task in TASKS.values():
        classes = " or ".join(f"`...{suffix}`" for suffix in task.suffixes)
        rows.append(f"| `{task.name}` | {task.modality.article} | {classes} |")
    table = "\n".join(["<!-- tasks -->", "", *rows, "", "<!-- end -->"])
    return TASKS_TABLE.sub(lambda match: table, page)


def part_anchors(page: str) -> dict[str, str]:
    """Return the anchor of the section that documents each part."""
    anchors, anchor = {}, ""
    for heading, kind, name in HEADING_OR_TABLE.findall(page):
        if kind == "fields":
            anchors[name] = anchor
        elif heading:
            anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return {name: anchors[repeated] for name, repeated in REPEATS.items() if repeated in anchors} | anchors


def has_values_table(name: str) -> bool:
    """Return whether the values that select the fields of a part have their own table."""
    return len(UNIONS[name].options()) > MAX_CASES_PER_LINE


def values_table(name: str) -> str:
    """Return the table of the values that select the fields of a part as Markdown, between its markers."""
    union = UNIONS[name]
    rows = [f"| `{union.discriminator}` | meaning |", "|---|---|"]
    for value, option in union.options().items():
        description = str(option.model_fields[union.discriminator].description)
        rows.append(f"| `{value}` | {meaning_of({'description': description})} |")
    return "\n".join([f"<!-- values: {name} -->", "", *rows, "", "<!-- end -->"])


def fields_table(name: str, anchors: Mapping[str, str]) -> str:
    """Return the table of a part as Markdown, between its markers; of a part without own fields, the field names."""
    rows = ["| field | default | values | meaning |", "|---|---|---|---|"]
    fields = own_fields(name)
    if not fields:
        rows = [", ".join(f"`{field}`" for field in PARTS[name]["properties"])]
    for field, spec in fields.items():
        required = "required" if field in PARTS[name].get("required", ()) else ""
        default = default_of(spec) or COMPUTED.get((name, field), required)
        values, meaning = alternatives(values_of(spec, anchors)), meaning_of(spec)
        if field == getattr(UNIONS.get(name), "discriminator", "") and has_values_table(name):
            values, meaning = "see above", str(UNIONS[name].model_fields[field].description)
        cells = [cell.replace("|", r"\|") for cell in (f"`{field}`", default, values, meaning)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"<!-- fields: {name} -->", "", *rows, "", "<!-- end -->"])


def default_of(spec: Mapping[str, Any]) -> str:
    """Return the default of a field; that of a part as its shorthand, or as ``{}`` if that is not set."""
    if "default" not in spec:
        return ""
    value = spec["default"]
    if isinstance(value, dict):
        shorthand = SHORTHANDS[REFERENCE.findall(json.dumps(spec))[0]]
        value = value.get(shorthand) or {}
    return code(value)


def alternatives(forms: Iterable[str]) -> str:
    """Return forms of a value as text: ``a, b or c``."""
    *first, last = dict.fromkeys(forms)
    return f"{', '.join(first)} or {last}" if first else last


def code(value: Any) -> str:
    """Return a value as in a recipe, marked as code."""
    return "`" + json.dumps(value).replace('"', "") + "`"


def values_of(spec: Mapping[str, Any], anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield the forms of the values of a field: literal values, a type with its bounds, or a link to fields."""
    if "$ref" in spec:
        name = REFERENCE.findall(spec["$ref"])[0]
        if value := SHORTHANDS[name] or BROADCAST_VALUES.get(name):
            yield f"`{value}`"
        yield f"[{LINK_TEXTS.get(name, 'fields')}](#{anchors[name]})"
    elif forms := spec.get("anyOf") or spec.get("oneOf"):
        for form in forms:
            yield from values_of(form, anchors)
    elif literals := spec.get("enum") or ([spec["const"]] if "const" in spec else []):
        yield ", ".join(map(code, literals))
    else:
        for kind in [spec["type"]] if isinstance(spec["type"], str) else spec["type"]:
            yield type_with_bounds(kind, spec, anchors)


def type_with_bounds(kind: str, spec: Mapping[str, Any], anchors: Mapping[str, str]) -> str:
    """Return a type of JSON Schema and its bounds in words."""
    if kind in ("array", "object"):
        content = spec["items"] if kind == "array" else spec["additionalProperties"]
        length = f"{spec['minItems']}: " if "maxItems" in spec else ""
        start = f"list of {length}" if kind == "array" else "mapping of names to "
        return start + alternatives(values_of(content, anchors))
    name = {"string": "text", "boolean": "`true`, `false`", "null": "`null`"}.get(kind, kind)
    bounds = [f"{sign} {spec[word]:.10g}" for word, sign in BOUNDS.items() if word in spec]
    return f"{name} {', '.join(bounds)}".strip()


def meaning_of(spec: Mapping[str, Any]) -> str:
    """Return the description of a field as Markdown."""
    text = LINK.sub(r"[\1](\1)", CODE.sub(r"`\g<0>`", NO_UNIT.sub("", spec["description"])))
    if len(CASE.findall(text)) > MAX_CASES_PER_LINE:
        text = CASE.sub(r"\1<br>", text)
    return re.sub(r"No measured benefit\.$", "*No measured benefit.*", text)


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; return the exit code."""
    outdated = 0
    for path, update in ((PAGE, render), (README, with_tasks)):
        page = path.read_text(encoding="utf-8")
        current = update(page)
        if arguments != ["--check"]:
            path.write_text(current, encoding="utf-8")
        elif page != current:
            outdated = 1
            print(f"{path} is not up to date. Run: python tools/recipe_tables.py", file=sys.stderr)
    return outdated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
