"""Every bad input ends with its message and exit code, and leaves no incomplete files."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from bad_folders import largest_file
from bad_input_case import Workspace
from bad_inputs import AREAS, CASES

TABLE = Path(__file__).parents[2] / "docs" / "bad-inputs.md"
TEMPORARY = (".part", ".tmp", ".incomplete")


@pytest.fixture(scope="module")
def workspace():
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as folder:
        yield Workspace(Path(folder))


def test_there_are_many_and_all_differ():
    assert len(CASES) >= 45
    assert Counter(case.title for case in CASES).most_common(1)[0][1] == 1
    assert all(len(cases) >= 5 for cases in AREAS.values())


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_a_bad_input(case, workspace):
    outcome = workspace.outcome(case)
    assert outcome.message == case.message
    assert outcome.code == case.code
    left = [
        path for path in outcome.written if not case.partial or not Path(path).is_relative_to(case.partial)
    ]
    assert left == []
    assert [path for path in outcome.written if path.endswith(TEMPORARY)] == []
    if case.partial:
        assert outcome.written != ()
        assert (workspace.folder / case.partial).exists()


def test_a_run_that_a_full_disk_stopped_is_resumed_to_the_same_end(workspace):
    workspace.reset()
    with largest_file(20_000):
        assert workspace.run("run recipe.yaml --output-dir new").code == 1
    assert json.loads((workspace.folder / "new/manifest.json").read_text())["state"] == "running"
    assert workspace.run("run recipe.yaml --output-dir new --resume").code == 0
    assert json.loads((workspace.folder / "new/manifest.json").read_text())["state"] == "done"
    for name in ("model/model.safetensors", "predictions.parquet"):
        assert (workspace.folder / "new" / name).read_bytes() == (
            workspace.folder / "run" / name
        ).read_bytes()
    assert not [path for path in (workspace.folder / "new").rglob("*") if path.name.endswith(TEMPORARY)]


def test_a_diverged_run_is_reported_again_when_it_is_resumed(workspace):
    case = next(case for case in CASES if case.title == "a learning rate with which training diverges")
    assert workspace.outcome(case).code == 1
    again = workspace.run(f"{case.command} --resume")
    assert again.code == 1
    assert again.message.splitlines()[-1] == case.message.splitlines()[-1]


def test_an_unreadable_image_is_reported_in_its_row_and_the_rest_is_predicted(workspace):
    case = next(case for case in CASES if case.title == "prediction for a folder with a damaged image")
    workspace.outcome(case)
    header, *lines = (workspace.folder / "found.csv").read_text().splitlines()
    assert header == "id,prediction,score,probability:cake,probability:soup,probability:tea,error"
    assert [line.split(",")[0] for line in lines] == [f"photos/tea/{index}.png" for index in range(6)]
    assert [bool(line.split(",")[1]) for line in lines] == [True, True, True, False, True, True]
    assert lines[3].startswith(
        "photos/tea/3.png,,,,,,The image cannot be read. It is a file in an unknown format"
    )


def test_the_table_in_the_documents_has_every_case():
    text = TABLE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| Input |")]
    assert len(rows) == len(CASES)
    for case, row in zip(CASES, rows, strict=True):
        title, _command, message, code = (cell.strip() for cell in row.strip("|").split(" | "))
        assert (title, int(code)) == (case.title, case.code)
        assert message == message_cell(case.message)


def message_cell(message):
    """Return a message as a cell of the table: its lines below each other."""
    escaped = message.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return "<br>".join(line.strip() for line in escaped.splitlines() if line.strip())
