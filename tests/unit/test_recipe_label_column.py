"""``data.columns.label``: a name, a list of names, or fields; and the rules between them."""

import pytest

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import dump_recipe, json_schema, parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml

FROM_NAMES = {"from": "name", "pattern": r"^(.+?)\.\d+\.jpg$"}


def recipe(label, *overrides, **columns):
    content = {
        "task": "text-classification",
        "model": "bert",
        "data": {"path": "notes.csv", "columns": {"label": label, **columns}},
        "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
    }
    return parse_recipe(content, overrides)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ("tags", {"name": "tags"}),
        (["toxic", "insult"], {"name": ("toxic", "insult")}),
        ({"name": ["toxic", "insult"]}, {"name": ("toxic", "insult")}),
        ({"name": "tags", "separator": ","}, {"name": "tags", "separator": ","}),
        ({"separator": " "}, {"name": None, "separator": " "}),
        ({"name": "tags", "classes": ["a", "b"]}, {"classes": ("a", "b")}),
        (FROM_NAMES, {"source": "name", "pattern": FROM_NAMES["pattern"], "name": None}),
        ({"name": "label", "normalize": True}, {"normalize": True}),
    ],
)
def test_every_form_is_read_and_written_again(given, fields):
    made = recipe(given)
    label = made.data.columns.label
    assert {name: getattr(label, name) for name in fields} == fields
    assert parse_recipe(read_yaml(dump_recipe(made), "recipe")[0]) == made
    assert parse_recipe(made.model_dump(mode="json")) == made


def test_a_name_alone_is_written_as_older_versions_wrote_it():
    assert recipe("tags").model_dump(mode="json")["data"]["columns"]["label"] == "tags"
    assert recipe(None).model_dump(mode="json")["data"]["columns"]["label"] is None
    assert recipe(FROM_NAMES).model_dump(mode="json")["data"]["columns"]["label"] == FROM_NAMES


def test_overrides_reach_the_fields_of_every_shorthand():
    assert recipe("tags", "data.columns.label.separator=;") == recipe({"name": "tags", "separator": ";"})
    assert recipe(None, "data.columns.label.separator=;") == recipe({"separator": ";"})
    assert recipe("tags", "data.columns.label=[a, b]") == recipe(["a", "b"])
    assert recipe(FROM_NAMES, "data.columns.label.pattern=(a)").data.columns.label.pattern == "(a)"
    assert recipe("tags", "data.columns.weight=w").data.columns.weight == "w"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["toxic"], "data.columns.label.name must list at least two columns. Got ['toxic']. "
         "If the labels are in one column, write only its name."),
        (["a", "a"], "data.columns.label.name must not contain duplicates. Got 'a'."),
        ({"name": 5}, "data.columns.label.name must be the name of a column or a list of names. Got 5."),
        ({"name": "x", "classes": ["a", "b", "a"]}, "data.columns.label.classes must not contain duplicates. Got 'a'."),
        ({"name": ["a", "b"], "separator": ","},
         "data.columns.label.separator must not be set unless the labels are in one column. Got ','."),
        ({"name": "x", "separator": ""}, "data.columns.label.separator must have at least 1 character. Got ''."),
        ({"from": "name"}, "data.columns.label.pattern must be set together with from: name."),
        ({"name": "x", "pattern": "(a)"},
         "data.columns.label.pattern must be set together with from: name. Got '(a)'."),
        ({**FROM_NAMES, "name": "x"}, "data.columns.label.name must not be set when from is set. Got 'x'."),
        ({"from": "name", "pattern": "cat"},
         "data.columns.label.pattern must have exactly one capturing group, the class. Got 'cat'. "
         r"For example '^(.+?)\.\d+\.jpg$'; write a non-capturing group as (?:...)."),
        ({"name": "x", "empty": "none"},
         "data.columns.label.empty must not be set unless separator is set. Got 'none'. "
         "In a column of lists, write an empty list as []; in other columns, an empty cell is a missing label."),
        ({"name": "x", "seperator": ","},
         "data.columns.label.seperator must be a known field. Nearest: 'separator'."),
    ],
)  # fmt: skip
def test_incompatible_settings_are_refused(given, message):
    with pytest.raises(InputError) as caught:
        recipe(given)
    assert str(caught.value) == message


def test_an_unknown_field_in_an_override_is_told_with_those_there_are():
    with pytest.raises(InputError, match=r"must set a known field\. Got 'fro'\. Nearest: 'from'"):
        recipe("tags", "data.columns.label.fro=name")


def test_the_json_schema_has_the_field_names_of_a_recipe():
    short, full = json_schema()["$defs"]["LabelColumnSpec"]["anyOf"]
    assert {one.get("type") for one in short["anyOf"]} == {"string", "array", "null"}
    assert "from" in full["properties"]
    assert "source" not in full["properties"]


@pytest.mark.parametrize("pattern", ["(a{99999999999})", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_no_library_can_compile_is_refused(pattern):
    with pytest.raises(InputError) as error:
        recipe({"from": "name", "pattern": pattern})
    assert "data.columns.label.pattern must " in str(error.value)
