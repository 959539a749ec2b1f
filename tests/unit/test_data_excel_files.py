"""Excel workbooks: the displayed values of their cells, as text."""

from datetime import date, datetime

import pytest
from data_helpers import prepare_data

from hf_finetune.data.table_files import read_file
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

openpyxl = pytest.importorskip("openpyxl")


def write(path, rows, **others):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title, more in others.items():
        sheet = book.create_sheet(title)
        for row in more:
            sheet.append(row)
    book.save(path)
    return path


def problem(path):
    with pytest.raises(InputError) as error:
        read_file(path)
    return str(error.value)


def test_cells_are_texts_as_they_show(tmp_path):
    day, moment = date(2024, 5, 1), datetime(2024, 5, 1, 12, 30)
    rows = [
        [],
        [" id ", "text", "label", "n", "when"],
        ["007", "a film", 1, 0.1 + 0.2, day],
        [7, "b\nfilm", 1.0, 2.5, moment],
        [123456789012345, 2024, True, None, "#N/A"],
        [None, None, None, None, None],
    ]
    found = read_file(write(tmp_path / "r.xlsx", rows))
    assert found.table.to_pydict() == {
        "id": ["007", "7", "123456789012345"],
        "text": ["a film", "b\nfilm", "2024"],
        "label": ["1", "1", "True"],
        "n": ["0.3", "2.5", None],
        "when": ["2024-05-01", "2024-05-01 12:30:00", None],
    }
    assert found.is_text


def test_codes_keep_the_zeros_that_their_format_shows(tmp_path):
    file = write(tmp_path / "r.xlsx", [["id", "text"], [7, "a"]])
    book = openpyxl.load_workbook(file)
    book.active["A2"].number_format = "0000"
    book.save(file)
    assert read_file(file).table["id"].to_pylist() == ["0007"]


def test_errors_and_numbers_that_are_no_dates_are_named(tmp_path, recwarn):
    rows = [
        ["text", "label", "n"],
        *([f"film {row}", 10_000_000 + row % 2, "#N/A" if row < 2 else 1] for row in range(9)),
    ]
    file = write(tmp_path / "r.xlsx", rows)
    book = openpyxl.load_workbook(file)
    for row in range(2, 11):
        book.active[f"B{row}"].number_format = "yyyy-mm-dd"
    book.save(file)
    found = read_file(file)
    assert found.notes == ("r.xlsx: cells with an error are read as empty: C2 (#N/A), C3 (#N/A).",)
    assert {name: str(doubt) for name, doubt in found.column_problems.items()} == {
        "label": "r.xlsx must not contain date-formatted numbers that are out of range for dates. Got B2, "
        "B3, B4, B5, B6, B7, B8, B9 and 1 more. Set a number format for the column 'label' in "
        "Excel or LibreOffice, and save the file."
    }
    with pytest.raises(InputError) as error:
        prepare_data(str(file), modality=MODALITIES["text"])
    assert found.column_problems["label"] in error.value.problems
    assert not recwarn.list


def test_other_sheets_are_reported(tmp_path):
    file = write(tmp_path / "r.xlsx", [["text", "label"], ["a", "x"]], notes=[["anything"]], old=[[1]])
    assert read_file(file).notes == (
        "r.xlsx: only the first sheet, 'Sheet', was read; skipped: 'notes', 'old'.",
    )


def test_errors_are_reported(tmp_path):
    file = tmp_path / "r.xlsx"
    assert problem(write(file, [["text", "label"], ["a", "=UPPER(A2)"], ["b", "x"]])) == (
        "r.xlsx must contain the computed values of its formulas. Got no values in 'B2'. Open the workbook "
        "in Excel or LibreOffice, save it, and try again."
    )
    assert problem(write(file, [["text", "label"], ["a", "x", "more"]])) == (
        "r.xlsx must not have values to the right of the 2 columns of its header. Got values in row 2. "
        "Name every column in row 1; if that row is a title, delete the rows above the header."
    )
    assert (
        problem(write(file, [])) == "r.xlsx must have values in its first sheet. Got the empty sheet 'Sheet'."
    )
    file.write_text("text,label\na,x\n")
    assert problem(file) == "r.xlsx must be readable as xlsx. Got BadZipFile: File is not a zip file."
