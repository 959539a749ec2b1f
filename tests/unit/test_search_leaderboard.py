"""`runs`: finished runs in a folder, by test metric, size and time, and the fields in which they differ."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.data.content_hashes import HASHES, write_hashes
from hf_finetune.errors import InputError
from hf_finetune.search.leaderboard import read_leaderboards


def write_run(folder, *, lr=0.1, hashes=(1, 2, 3), state="done", metric="accuracy", **metrics):
    folder.mkdir(parents=True)
    recipe = {"data": {"path": "photos"}, "stages": [{"train": "head", "lr": lr}], "metrics": None}
    content = {"data": f"data {lr}", "classes": "cake, soup"}
    (folder / "manifest.json").write_text(
        json.dumps({"state": state, "recipe": recipe, "fingerprints": content})
    )
    ends = {metric: [value - 0.1 for value in (0.8, 1.0)]}
    result = {
        **{"target": "single_label", "wall_seconds": 10.0, "test": {metric: 0.8}, "test_interval": ends},
        **{"stages": [{"total_parameters": 100}], **metrics},
    }
    (folder / "metrics.json").write_text(json.dumps(result))
    write_hashes(folder / HASHES, {"test": np.array(hashes, dtype=np.uint64)})
    return folder


def names(board):
    return [run.name for run in board.runs]


def test_the_best_run_is_first_and_differing_fields_are_named(tmp_path):
    write_run(tmp_path / "a", lr=0.1, test_interval={})
    write_run(tmp_path / "deep" / "b", lr=0.2, test={"accuracy": 0.9})
    (board,), unfinished = read_leaderboards(tmp_path)
    assert names(board) == ["deep/b", "a"]
    assert (board.metric, board.differing, unfinished) == ("accuracy", ("stages.0.lr",), 0)
    assert [run.fields["stages.0.lr"] for run in board.runs] == [0.2, 0.1]
    assert board.runs[0].intervals["accuracy"] == pytest.approx((0.7, 0.9))


def test_a_lower_error_is_better(tmp_path):
    for name, value in (("a", 2.0), ("b", 1.0)):
        write_run(tmp_path / name, metric="rmse", target="regression", test={"rmse": value})
    (board,), _ = read_leaderboards(tmp_path)
    assert (board.metric, names(board)) == ("rmse", ["b", "a"])


def test_runs_with_other_test_examples_have_their_own_table(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    write_run(tmp_path / "c", hashes=(1, 2, 4))
    boards, _ = read_leaderboards(tmp_path)
    assert [names(board) for board in boards] == [["a", "b"], ["c"]]


def test_unfinished_and_damaged_runs_are_counted_and_folds_are_not_listed(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "a" / "folds" / "1")
    write_run(tmp_path / "b", state="stages")
    (write_run(tmp_path / "c") / "metrics.json").write_text("{")
    (board,), unfinished = read_leaderboards(tmp_path)
    assert (names(board), unfinished) == (["a"], 2)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("metric", "abc"), ("seconds", "bca"), ("name", "abc"), ("milliseconds", "cab"), ("parameters", "acb")],
)
def test_runs_are_sorted_by_a_value(tmp_path, sort, expected):
    for name, value, seconds, size, milliseconds in (
        ("a", 0.9, 30.0, 1, 2.0),
        ("b", 0.8, 10.0, 3, None),
        ("c", 0.7, 20.0, 2, 1.0),
    ):
        changes = {
            "test": {"accuracy": value},
            "wall_seconds": seconds,
            "stages": [{"total_parameters": size}],
        }
        timing = {} if milliseconds is None else {"test_examples": 10, "test_seconds": milliseconds / 100}
        write_run(tmp_path / name, **changes, **timing)
    (board,), _ = read_leaderboards(tmp_path, sort=sort)
    assert "".join(names(board)) == expected


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("nowhere", {}, "nowhere must be a folder that contains runs."),
        (".", {"sort": "time"}, "--sort must be one of metric, seconds,"),
        (
            ".",
            {"metric": "acuracy"},
            "--metric must be a metric of a run. Got 'acuracy'. Nearest: 'accuracy'.",
        ),
    ],
)
def test_invalid_options_are_refused(tmp_path, monkeypatch, folder, options, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a")
    with pytest.raises(InputError) as error:
        read_leaderboards(tmp_path / folder if folder == "." else type(tmp_path)(folder), **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "damage",
    [
        {"wall_seconds": [1]},
        {"wall_seconds": float("inf")},
        {"stages": []},
        {"stages": [{"total_parameters": None}]},
        {"test": None},
        {"test": {"accuracy": float("nan")}},
        {"test_interval": {"accuracy": [0.1]}},
        {"test_examples": 10, "test_seconds": "a while"},
    ],
)
def test_damaged_values_are_not_shown(tmp_path, damage):
    write_run(tmp_path / "a", **damage)
    assert read_leaderboards(tmp_path) == ([], 1)


def test_numbers_that_json_does_not_have_are_texts(tmp_path):
    write_run(tmp_path / "a", lr=float("inf"))
    printed = CliRunner().invoke(app, ["runs", str(tmp_path), "--json"]).output

    def refuse(name):
        raise AssertionError(name)

    (board,) = json.loads(printed, parse_constant=refuse)["leaderboards"]
    assert board["runs"][0]["fields"]["stages.0.lr"] == "Infinity"


def test_a_run_itself_is_shown_and_links_are_not_followed(tmp_path, monkeypatch):
    run = write_run(tmp_path / "runs" / "a")
    write_run(run / "folds" / "1")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path)
    (tmp_path / "runs" / "linked").symlink_to(run)
    monkeypatch.chdir(run)
    for folder in (run, type(run)(".")):
        (board,), _ = read_leaderboards(folder)
        assert names(board) == ["a"]
    (board,), _ = read_leaderboards(tmp_path)
    assert names(board) == ["runs/a", "runs/linked"]


def test_names_are_printed_as_they_are_and_no_column_is_left_out(tmp_path):
    write_run(tmp_path / "[red]a" / "[" / "b]:smile:")
    manifest = tmp_path / "[red]a" / "[" / "b]:smile:" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"photos"', '"[/photos]:smile:"'))
    printed = CliRunner().invoke(app, ["runs", str(tmp_path)], terminal_width=40, env={"COLUMNS": "40"})
    assert printed.exit_code == 0, printed.exception
    for text in (
        "Test examples of [/photos]:smile:",
        "[red]a/[/b]:smile:",
        "0.700-0.900",
        "fields that differ",
    ):
        assert text in printed.output


def test_the_command_prints_a_table_or_json(tmp_path):
    write_run(tmp_path / "a", lr=0.1)
    write_run(tmp_path / "b", lr=0.25, test={"accuracy": 0.9})
    printed = CliRunner().invoke(app, ["runs", str(tmp_path)], terminal_width=200).output
    assert "stages.0.lr=0.25" in printed and "0.700-0.900" in printed
    content = json.loads(CliRunner().invoke(app, ["runs", str(tmp_path), "--json"]).output)
    (board,) = content["leaderboards"]
    assert [run["metrics"]["accuracy"] for run in board["runs"]] == [0.9, 0.8]
    assert content["unfinished"] == 0


def test_the_size_is_that_of_the_saved_weights(tmp_path):
    folder = write_run(tmp_path / "a")
    for name, size in (
        ("model/model.safetensors", 5),
        ("adapter/adapter.safetensors", 2),
        ("stages/01/x.safetensors", 9),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes(size))
    (board,), _ = read_leaderboards(tmp_path)
    assert board.runs[0].bytes == 7


def test_an_empty_folder_has_no_runs(tmp_path):
    assert CliRunner().invoke(app, ["runs", str(tmp_path)]).output == f"No finished runs in {tmp_path}.\n"
