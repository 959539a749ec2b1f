"""Predictions written as csv, jsonl and Parquet."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import Prediction
from hf_finetune.evaluation.prediction_writers import json_line, open_output

BAD = Prediction("bad.png", error="The image cannot be read.")
CASES = {
    "single_label": (("soup", "käse"), Prediction("a", "käse", 0.75, {"soup": 0.25, "käse": 0.75})),
    "multi_label": (("soup", "käse"), Prediction("a", ["soup", "käse"], None, {"soup": 0.5, "käse": 0.75})),
    "regression": (("label",), Prediction("a", 1.5)),
}


def write(path, target, predictions):
    with open_output(path, target, CASES[target][0]) as put:
        for prediction in predictions:
            put(prediction)
    return path


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (
            "single_label",
            '{"id": "a", "prediction": "käse", "score": 0.75, "scores": {"soup": 0.25, "käse": 0.75}}',
        ),
        ("multi_label", '{"id": "a", "prediction": ["soup", "käse"], "scores": {"soup": 0.5, "käse": 0.75}}'),
        ("regression", '{"id": "a", "prediction": 1.5}'),
    ],
)
def test_jsonl(tmp_path, target, line):
    path = write(tmp_path / "p.jsonl", target, [CASES[target][1], BAD])
    bad = '{"id": "bad.png", "error": "The image cannot be read."}'
    assert path.read_text(encoding="utf-8") == f"{line}\n{bad}\n"
    assert json_line(CASES[target][1]) == line


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        (
            "single_label",
            [
                ["id", "prediction", "score", "probability:soup", "probability:käse", "error"],
                ["a", "käse", "0.75", "0.25", "0.75", ""],
                ["bad.png", "", "", "", "", BAD.error],
            ],
        ),
        (
            "multi_label",
            [
                ["id", "prediction", "probability:soup", "probability:käse", "error"],
                ["a", '["soup", "käse"]', "0.5", "0.75", ""],
                ["bad.png", "", "", "", BAD.error],
            ],
        ),
        ("regression", [["id", "prediction", "error"], ["a", "1.5", ""], ["bad.png", "", BAD.error]]),
    ],
)
def test_csv(tmp_path, target, rows):
    path = write(tmp_path / "p.csv", target, [CASES[target][1], BAD])
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == rows


@pytest.mark.parametrize("target", CASES)
def test_parquet_over_several_batches(tmp_path, target, monkeypatch):
    monkeypatch.setattr("hf_finetune.evaluation.prediction_writers._ROWS_AT_ONCE", 2)
    _, prediction = CASES[target]
    found = pq.read_table(write(tmp_path / "p.parquet", target, [prediction, BAD, prediction])).to_pylist()
    assert [row["id"] for row in found] == ["a", "bad.png", "a"]
    assert [row["prediction"] for row in found] == [prediction.label, None, prediction.label]
    assert [row["error"] for row in found] == [None, BAD.error, None]
    for name, score in prediction.scores.items():
        assert [row[f"probability:{name}"] for row in found] == [score, None, score]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_interrupted_output_leaves_existing_files(tmp_path, ending):
    path = tmp_path / f"p.{ending}"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), open_output(path, "regression", ("label",)) as put:
        put(CASES["regression"][1])
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_no_predictions_make_an_empty_file(tmp_path, ending):
    path = write(tmp_path / f"p.{ending}", "single_label", [])
    assert path.is_file()
    if ending == "jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == []


def test_paths_that_cannot_be_written_to_are_reported(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for name, message in {
        "p.txt": "must end in .csv, .jsonl or .parquet. Got {!r}.",
        "folder.csv": "must be a file. Got the folder {!r}.",
        "gone/p.csv": "must be in a folder that exists. Got {!r}.",
    }.items():
        with pytest.raises(InputError) as caught, open_output(tmp_path / name, "regression", ("label",)):
            pass
        assert str(caught.value) == "--output " + message.format(str(tmp_path / name))


FORECAST = Prediction(
    "shop 1",
    [10.0, 20.0],
    None,
    {"quantile:0.1": [5.0, 15.0], "quantile:0.9": [15.0, 25.0]},
    row={"time": ["2024-06", "2024-07"]},
)


def write_forecasts(path):
    with open_output(path, "forecast", ("step 1", "step 2"), ("time",)) as put:
        put(FORECAST)
        put(Prediction("shop 2", error="The series must have a value at each step of 1 month."))
    return path


def test_a_forecast_has_one_row_per_step(tmp_path):
    with write_forecasts(tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "step", "time", "prediction", "quantile:0.1", "quantile:0.9", "error"],
            ["shop 1", "1", "2024-06", "10.0", "5.0", "15.0", ""],
            ["shop 1", "2", "2024-07", "20.0", "15.0", "25.0", ""],
            ["shop 2", "", "", "", "", "", "The series must have a value at each step of 1 month."],
        ]
    table = pq.read_table(write_forecasts(tmp_path / "p.parquet")).to_pydict()
    assert table["step"] == [1, 2, None]
    assert table["prediction"] == [10.0, 20.0, None] and table["quantile:0.9"] == [15.0, 25.0, None]
    assert table["time"] == ["2024-06", "2024-07", None]


def test_a_forecast_is_one_line_of_json(tmp_path):
    lines = write_forecasts(tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "id": "shop 1",
        "time": ["2024-06", "2024-07"],
        "prediction": [10.0, 20.0],
        "scores": {"quantile:0.1": [5.0, 15.0], "quantile:0.9": [15.0, 25.0]},
    }
    assert list(json.loads(lines[1])) == ["id", "error"]
