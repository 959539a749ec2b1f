"""Predictions written to Parquet and read back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_finetune.errors import InputError
from hf_finetune.evaluation.predictions import Predictions, read_predictions, write_predictions

CASES = {
    "single_label": (("soup", "cake"), np.array([0, 1]), np.array([[0.75, 0.25], [0.625, 0.375]])),
    "multi_label": (("soup", "cake"), np.array([[1, 1], [0, 0]]), np.array([[0.5, 0.75], [0.125, 0.25]])),
    "regression": (("label",), np.array([1.5, -2.0]), np.array([1.25, 3.0])),
}
IDS = ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("target", CASES)
def test_written_predictions_are_read_back(tmp_path, target):
    names, labels, scores = CASES[target]
    write_predictions(tmp_path / "predictions.parquet", Predictions(IDS, labels, scores, target, names))
    found = read_predictions(tmp_path / "predictions.parquet")
    assert (found.ids, found.target, found.label_names) == (tuple(IDS), target, names)
    assert np.array_equal(found.labels, labels)
    assert np.array_equal(found.scores, scores)


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        (
            "single_label",
            [
                {
                    "id": "a.jpg",
                    "label": "soup",
                    "prediction": "soup",
                    "probability:soup": 0.75,
                    "probability:cake": 0.25,
                },
                {
                    "id": "b.jpg",
                    "label": "cake",
                    "prediction": "soup",
                    "probability:soup": 0.625,
                    "probability:cake": 0.375,
                },
            ],
        ),
        (
            "multi_label",
            [
                {
                    "id": "a.jpg",
                    "label": ["soup", "cake"],
                    "prediction": ["soup", "cake"],
                    "probability:soup": 0.5,
                    "probability:cake": 0.75,
                },
                {
                    "id": "b.jpg",
                    "label": [],
                    "prediction": [],
                    "probability:soup": 0.125,
                    "probability:cake": 0.25,
                },
            ],
        ),
        (
            "regression",
            [
                {"id": "a.jpg", "label": 1.5, "prediction": 1.25},
                {"id": "b.jpg", "label": -2.0, "prediction": 3.0},
            ],
        ),
    ],
)
def test_columns_are_readable(tmp_path, target, rows):
    names, labels, scores = CASES[target]
    write_predictions(tmp_path / "p.parquet", Predictions(IDS, labels, scores, target, names))
    assert pq.read_table(tmp_path / "p.parquet").to_pylist() == rows


def test_a_failed_write_leaves_existing_files(tmp_path, monkeypatch):
    path = tmp_path / "p.parquet"
    names, labels, scores = CASES["single_label"]
    write_predictions(path, Predictions(IDS, labels, scores, "single_label", names))
    before = path.read_bytes()

    def fill_the_disk(table, where):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_finetune.evaluation.predictions.pq.write_table", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        write_predictions(path, Predictions(IDS, labels[::-1], scores, "single_label", names))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_the_file_can_be_read_by_others_as_any_new_file(tmp_path):
    names, labels, scores = CASES["regression"]
    write_predictions(tmp_path / "p.parquet", Predictions(IDS, labels, scores, "regression", names))
    (tmp_path / "other").touch()
    assert (tmp_path / "p.parquet").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_lengths_must_agree(tmp_path):
    with pytest.raises(ValueError, match="Got 1, 2, 2"):
        write_predictions(
            tmp_path / "p.parquet", Predictions(["a"], *CASES["regression"][1:], "regression", ("label",))
        )


def test_other_files_are_refused(tmp_path):
    pq.write_table(pa.table({"image": ["a"], "label": ["b"]}), tmp_path / "data.parquet")
    with pytest.raises(InputError) as caught:
        read_predictions(tmp_path / "data.parquet")
    assert str(caught.value) == (
        f"{tmp_path / 'data.parquet'} must begin with the columns id, label and prediction. "
        "Got 'image', 'label'."
    )
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    for name in ("broken.parquet", "missing.parquet"):
        with pytest.raises(InputError, match=f"{name} must be a Parquet file of predictions"):
            read_predictions(tmp_path / name)
