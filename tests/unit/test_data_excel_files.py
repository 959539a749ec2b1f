"""Excel workbooks: what their cells show, as text."""

from datetime import date, datetime

import pytest

from hf_finetune.data.table_files import read_file
from hf_finetune.errors import InputError

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


def test_other_sheets_are_told(tmp_path):
    file = write(tmp_path / "r.xlsx", [["text", "label"], ["a", "x"]], notes=[["anything"]], old=[[1]])
    assert read_file(file).notes == (
        "r.xlsx: the first sheet, 'Sheet', was read; the others were not: 'notes', 'old'.",
    )


def test_what_is_wrong_is_named(tmp_path):
    file = tmp_path / "r.xlsx"
    assert problem(write(file, [["text", "label"], ["a", "=UPPER(A2)"], ["b", "x"]])) == (
        "r.xlsx must hold the values of its formulas. Got none in 'B2'. "
        "Open the workbook in Excel or LibreOffice, save it, and try again."
    )
    assert problem(write(file, [["text", "label"], ["a", "x", "more"]])) == (
        "r.xlsx must have no values beyond the 2 columns that its header names. Got some in row 2."
    )
    assert problem(write(file, [])) == "r.xlsx must hold at least one example. Got nothing in sheet 'Sheet'."
    file.write_text("text,label\na,x\n")
    assert problem(file) == "r.xlsx must be readable as xlsx. Got BadZipFile: File is not a zip file."
