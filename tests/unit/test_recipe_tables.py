"""The tables of recipe fields in docs/recipe.md, and the marks of fields without a measured benefit."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tools"), str(ROOT)]

import recipe_tables  # noqa: E402
from recipe_tables import PARTS, REPEATS, own_fields  # noqa: E402

from benchmarks.kit.groups import GROUPS  # noqa: E402
from benchmarks.kit.page import setting_title  # noqa: E402
from hf_finetune.fields.base import leaf_parts  # noqa: E402

PAGE = recipe_tables.PAGE.read_text(encoding="utf-8")
DOCUMENTED = Counter(
    (name, field)
    for name, table in re.findall(r"<!-- fields: (\w+) -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    for field in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
)
ROW = re.compile(
    r"^\| (.+?) \| [\d.]+ \|.*\| (better|worse|not significant|reference) \| [^|]*\| [^|]*\|$", re.M
)
OF_RECIPE = {"SingleTaskRecipe": "Recipe"} | {
    name: base.__name__ for name, base in recipe_tables.CHOICES.items()
}
"""The table of a union contains the fields of all its options."""


def fields_of(part):
    return {field.alias or name for name, field in part.model_fields.items()}


@pytest.mark.parametrize("part", leaf_parts(), ids=lambda part: part.__name__)
def test_each_field_is_in_exactly_one_table(part):
    name = OF_RECIPE.get(part.__name__, part.__name__)
    other = REPEATS.get(name)
    places = {
        field: DOCUMENTED[name, field] + (DOCUMENTED[other, field] if field not in own_fields(name) else 0)
        for field in fields_of(part)
    }
    assert places == dict.fromkeys(places, 1)


def test_the_tables_contain_no_other_fields():
    assert {name for name, _ in DOCUMENTED} <= PARTS.keys()
    assert {OF_RECIPE.get(part.__name__, part.__name__) for part in leaf_parts()} == PARTS.keys()
    assert all(field in own_fields(name) for name, field in DOCUMENTED)


def test_a_repeated_field_has_the_description_of_the_other():
    for name, other in REPEATS.items():
        repeated = PARTS[name]["properties"].keys() - own_fields(name).keys()
        assert repeated
        assert all(
            PARTS[name]["properties"][field] == PARTS[other]["properties"][field] for field in repeated
        )


def test_the_page_is_up_to_date(capsys):
    assert recipe_tables.main(["--check"]) == 0, capsys.readouterr().err


def test_an_outdated_page_fails_and_is_rewritten(tmp_path, monkeypatch, capsys):
    page = tmp_path / "recipe.md"
    page.write_text(PAGE.replace("| `epochs` |", "| `epoch` |"), encoding="utf-8")
    monkeypatch.setattr(recipe_tables, "PAGE", page)
    assert recipe_tables.main(["--check"]) == 1
    assert "is not up to date. Run: python tools/recipe_tables.py" in capsys.readouterr().err
    assert recipe_tables.main([]) == 0
    assert page.read_text(encoding="utf-8") == PAGE


@pytest.mark.parametrize(
    "row",
    [
        "| `prune` | required | number > 0, < 1 | Fraction to remove of ",
        "| `optimizer` | `adamw` | `name` or [fields](#the-fields-of-a-stage) | Optimizer. |",
        "| `nested` | `null` | `join`, `top` or `null` | Class of a file in nested class folders:<br>`join` = ",
        "| `seed` | `0` | integer ≥ 0, ≤ 4294967295 | ",
        "| `backbone` | required | number > 0 or list of 2: number > 0 | ",
        "| `data` | required | `path` or [fields](#multi-task-learning) | ",
        "| `exponential` | Decay by a constant factor per step, ",
    ],
)
def test_a_row_has_default_values_and_meaning(row):
    assert row in PAGE


NOT_THE_SUBJECT = {("StageSpec", "lr"), ("StrategySpec", "name"), ("Recipe", "strategy")}
"""Fields of measured settings that stay unmarked: the rate of the cosine head, and the strategy, of which only features
was measured, as its description says."""
IN_USE = {
    *(("StageSpec", name) for name in ("schedule", "weight_decay", "early_stopping", "best", "fit")),
    *(("ScheduleSpec", "name"), ("EarlyStoppingSpec", "patience")),
    *(("DataSpec", "augment"), ("AugmentSpec", "preset")),
}
"""Fields that stay unmarked although no setting was better: they are in use by default, or save time."""


def measured_fields(changes, first):
    """Yield the fields (part, name) by which a setting of the kit differs from the first one of its group."""
    for key in changes.keys() | first.keys():
        value = changes.get(key)
        if value == first.get(key):
            continue
        place, _, field = key.replace("stage.", "StageSpec.").rpartition(".")
        part = {"": "Recipe", "model": "ModelSpec", "data": "DataSpec"}.get(place, place)
        if not place and field in own_fields("MultiTaskRecipe"):
            part = "MultiTaskRecipe"
        yield part, field
        if field == "tasks":
            yield from {("TaskSpec", "weight") for task in value.values() if "weight" in task}
        elif field == "domain_adaptation":
            yield "DomainSpec", "method"
        elif value is not None:
            yield from fields_within(part, field, value)


def fields_within(part, field, value):
    names = recipe_tables.REFERENCE.findall(str(PARTS[part]["properties"][field]))
    if names and isinstance(value, dict):
        yield from ((names[0], inner) for inner in value)
    elif names and recipe_tables.SHORTHANDS[names[0]]:
        yield names[0], recipe_tables.SHORTHANDS[names[0]]


def test_exactly_the_fields_that_the_kit_could_not_show_to_help_are_marked():
    kit = (ROOT / "docs/kit.md").read_text(encoding="utf-8")
    rows = iter(ROW.findall(kit))
    measured, helpful = set(), set()
    for group in GROUPS.values():
        for setting, changes in group.settings.items():
            shown, verdict = next(rows)
            assert shown == setting_title(setting)
            fields = set(measured_fields(changes, next(iter(group.settings.values()))))
            measured |= fields
            helpful |= fields if verdict == "better" else set()
    assert next(rows, None) is None
    expected = measured - helpful - NOT_THE_SUBJECT - IN_USE
    assert ("Recipe", "domain_adaptation") in expected
    marked = {
        (name, field)
        for name in PARTS
        for field, spec in own_fields(name).items()
        if spec["description"].endswith(" No measured benefit.")
    }
    assert marked == expected
