"""JSON files in all forms that pandas writes, and other files called .json."""

import json

import pandas as pd
import pytest

from hf_finetune.data.json_files import contains_no_table
from hf_finetune.data.table_files import read_file
from hf_finetune.errors import InputError

ROWS = [{"text": "good", "label": "01"}, {"text": "bad", "label": "1"}, {"text": "so", "label": "01"}]
COLUMNS = {"text": ["good", "bad", "so"], "label": ["01", "1", "01"]}


def columns(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_file(path).table.to_pydict()


def problem(path, content):
    with pytest.raises(InputError) as error:
        columns(path, content)
    return str(error.value)


@pytest.mark.parametrize("index", [None, ["x1", "x2", "x3"], [10, 20, 30]])
@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_the_forms_of_pandas(tmp_path, orient, index):
    frame = pd.DataFrame(ROWS, index=index)
    found = columns(tmp_path / "r.json", frame.to_json(orient=orient))
    assert {name: found[name] for name in COLUMNS} == COLUMNS


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.ndjson"])
def test_lines_and_lists_whatever_the_suffix(tmp_path, name):
    lines = "\n\n".join(map(json.dumps, ROWS))
    assert columns(tmp_path / name, lines) == COLUMNS
    assert columns(tmp_path / name, json.dumps(ROWS)) == COLUMNS
    assert columns(tmp_path / name, "\ufeff" + json.dumps(ROWS, indent=1)) == COLUMNS


def test_objects_that_hold_a_list(tmp_path):
    file = tmp_path / "r.json"
    assert columns(file, {"version": "1", "data": ROWS}) == COLUMNS
    assert columns(file, COLUMNS) == COLUMNS
    found = columns(file, {"train": ROWS[:2], "test": ROWS[2:]})
    assert found == {**COLUMNS, "split": ["train", "train", "test"]}


@pytest.mark.parametrize(
    "content",
    [
        {"name": "package", "version": "1"},
        {"0": "cat", "1": "dog"},
        ["cat", "dog"],
        [["a", 1]],
        3,
        '"a"',
        {},
        [],
    ],
)
def test_other_documents_hold_no_table(tmp_path, content):
    file = tmp_path / "r.json"
    assert problem(file, content).startswith("r.json must contain a table. Got ")
    assert contains_no_table(file)
    columns(file, ROWS)
    assert not contains_no_table(file)
    file.write_text("{broken")
    assert not contains_no_table(file)


def test_errors_are_reported_with_their_line(tmp_path):
    assert problem(tmp_path / "r.jsonl", '{"text": "a"}\n{"text": "b}\n') == (
        "r.jsonl must be readable as json. Got Unterminated string starting at in line 2. Write a JSON "
        "object on each line of a jsonl file, or a list of objects in a json file."
    )
    assert problem(tmp_path / "r.jsonl", '{"text": "a"}\n["b"]\n') == (
        "r.jsonl must contain a JSON object on each line. Got a list of strings in line 2."
    )
    assert "the key 'text' occurs twice in an object" in problem(
        tmp_path / "r.jsonl", '{"text": "a", "text": "b"}\n{}\n'
    )
    assert problem(tmp_path / "r.json", "[" * 100_000).startswith("r.json must be readable as json. Got ")


def test_values_keep_the_types_that_all_rows_share(tmp_path):
    file = tmp_path / "r.jsonl"
    rows = [
        {"a": 1, "b": "2020-01-01", "c": True, "d": ["x"]},
        {"a": 2.5, "b": "01", "c": None, "d": []},
        {"e": 1},
    ]
    assert columns(file, "\n".join(map(json.dumps, rows))) == {
        "a": [1.0, 2.5, None], "b": ["2020-01-01", "01", None], "c": [True, None, None], "d": [["x"], [], None],
        "e": [None, None, 1],
    }  # fmt: skip
    assert columns(file, '{"a": 1}\n{"a": "01"}\n') == {"a": ["1", "01"]}
    assert read_file(file).notes == (
        "r.jsonl: the values of 'a' are of several types, so they are read as strings.",
    )
    assert problem(file, '{"a": ["x"]}\n{"a": "y"}\n') == (
        "r.jsonl must contain values of one type in 'a'. Got different types in examples 0 and 1."
    )
    assert problem(file, '{"a": "x"}\n{"a": "\\ud800"}\n') == (
        "r.jsonl must contain valid Unicode text. Got an unpaired surrogate in 'a', example 1."
    )


def test_classes_that_a_file_lists_name_the_numbers_of_its_rows(tmp_path):
    rows = [
        {"path": "a.png", "gt_label": 1},
        {"path": "b.png", "gt_label": 0},
        {"path": "c.png", "gt_label": None},
    ]
    file = tmp_path / "r.json"
    file.write_text(json.dumps({"metainfo": {"classes": ["zebra", "ape"], "task": "x"}, "data_list": rows}))
    found = read_file(file)
    assert found.table.to_pydict()["gt_label"] == ["ape", "zebra", None]
    assert found.notes == (
        "r.json: the numbers in 'gt_label' are read as indices into the list of classes in the file: "
        "'zebra', 'ape'.",
    )
    several = [{"path": "a.png", "label": [1, 0]}, {"path": "b.png", "label": []}]
    file.write_text(json.dumps({"class_names": ["zebra", "ape"], "rows": several}))
    assert read_file(file).table.to_pydict()["label"] == [["ape", "zebra"], []]


@pytest.mark.parametrize(
    "beside, label",
    [
        ({"metainfo": {"classes": ["a", "b"]}}, 2),  # no position in the list
        ({"metainfo": {"classes": ["a", "a"]}}, 1),
        ({"classes": ["a", "b"]}, 0.5),
        ({"version": 1}, 1),
    ],
)
def test_other_content_than_rows_is_reported(tmp_path, beside, label):
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**beside, "data": [{"text": "a", "label": label}]}))
    found = read_file(file)
    assert found.table.to_pydict()["label"] == [label]
    assert found.notes == (f"r.json: keys next to the rows were ignored: {next(iter(beside))!r}.",)
