"""Bad inputs: tables that cannot be read with certainty."""

import gzip

from bad_input_case import Case
from bad_input_steps import copy, do, rows, workbook, write

__all__ = ["CASES"]

PAIRS = [f"the film {number},{label}" for number in range(6) for label in ("bad", "good")]


CASES = [
    Case(
        "csv rows with too few cells",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have 2 cells in each row, as in its header. Got 1 cell in line 14. Write a "
            "separator for each empty cell, and quote each cell that contains a line break or a carriage "
            "return."
        ),
        rows("reviews.csv", "text,label", *PAIRS, "a film"),
    ),
    Case(
        "a csv with a carriage return in an unquoted cell",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have 2 cells in each row, as in its header. Got 1 cell in line 14. Write a "
            "separator for each empty cell, and quote each cell that contains a line break or a carriage "
            "return."
        ),
        write("reviews.csv", "\n".join(["text,label", *PAIRS, "a\rfilm,bad", ""])),
    ),
    Case(
        "a csv with an unnamed index column",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have 2 cells in each row, as in its header. Got 3 cells in line 2, "
            "3 cells in line 3, 3 cells in line 4, 3 cells in line 5, 3 cells in line 6, 3 cells in line 7, "
            "3 cells in line 8, 3 cells in line 9 and 4 more. If the first cell of each row is an "
            "index, add a name for that column to the header."
        ),
        rows("reviews.csv", "text,label", *(f"{row},{pair}" for row, pair in enumerate(PAIRS))),
    ),
    Case(
        "a csv with two possible separators",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have an unambiguous separator. Got several candidates (commas: 2 cells, "
            "pipes: 2 cells). Set data.separator."
        ),
        rows("reviews.csv", "text,label|source", *(f"{pair}|web" for pair in PAIRS)),
    ),
    Case(
        "a csv with an unclosed quote",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have quotes only around whole cells. Got an invalid quote in the record "
            "that begins in line 3 (unexpected end of data). Double each quote inside a quoted cell, and "
            "close each quoted cell."
        ),
        rows("reviews.csv", "text,label", '"a film, the best",good', '"a film, the worst,bad', *PAIRS),
    ),
    Case(
        "a csv without a header",
        "plan text.yaml",
        (
            "3 problems:\n"
            "  data.columns.text must be set, because no column looks like texts. Got columns 'the film 0', "
            "'bad'. Set data.columns.text to one of them.\n"
            "  data.columns.label must be set, because no column looks like labels. Got columns 'the film "
            "0', 'bad'. Set data.columns.label to one of them.\n"
            "  reviews.csv must begin with a header line. Got 'the film 0', 'bad', which looks like a row "
            "of data: 'bad' also occurs in 5 rows below. Add a header line with the column names, such as "
            "text,label."
        ),
        rows("reviews.csv", *PAIRS),
    ),
    Case(
        "a csv with two different columns of the same name",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have unique column names. Got 'label' 2 times. Rename all but one of them."
        ),
        rows("reviews.csv", "text,label,label", *(f"{pair},{row % 3}" for row, pair in enumerate(PAIRS))),
    ),
    Case(
        "a csv in another encoding",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must be readable as UTF-8. Got invalid bytes in line 14. Save it again as "
            "UTF-8, or set data.encoding: cp1252 reads 'le café noir,g', cp1250 reads 'le café noir,g', "
            "cp1251 reads 'le cafй noir,g'."
        ),
        write("reviews.csv", "\n".join(["text,label", *PAIRS, "le café noir,good", ""]).encode("cp1252")),
    ),
    Case(
        "a csv that is an HTML page",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must be a text file. Got an HTML page. Download the file itself, not the page that shows it."
        ),
        write("reviews.csv", "<!DOCTYPE html><html>sign in</html>"),
    ),
    Case(
        "a csv with a NUL byte",
        "plan text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must not contain NUL bytes. Got a NUL byte in line 3. Remove it; if the file is "
            "UTF-16, set data.encoding: utf-16-le."
        ),
        write("reviews.csv", "text,label\na film,good\na \0film,bad\n"),
    ),
    Case(
        "a truncated gzip file",
        "plan text.yaml data=reviews.csv.gz",
        (
            "Problem:\n"
            "  reviews.csv.gz must be a complete and valid gzip file. Got EOFError: Compressed file ended "
            "before the end-of-stream marker was reached."
        ),
        write("reviews.csv.gz", gzip.compress(b"text,label\na,b\n" * 99)[:-9]),
    ),
    Case(
        "a workbook with a title above the header",
        "plan text.yaml data=reviews.xlsx",
        (
            "Problem:\n"
            "  reviews.xlsx must not have values to the right of the 1 column of its header. Got values in "
            "row 2, 3, 4, 5, 6, 7, 8, 9 and 5 more. Name every column in row 1; if that row is a title, "
            "delete the rows above the header."
        ),
        workbook(
            "reviews.xlsx", ["Reviews of 2025"], ["text", "label"], *(pair.split(",") for pair in PAIRS)
        ),
    ),
    Case(
        "a workbook with numeric labels formatted as dates",
        "plan text.yaml data=reviews.xlsx",
        (
            "Problem:\n"
            "  reviews.xlsx must not contain date-formatted numbers that are out of range for dates. Got "
            "B2, B3, B4, B5, B6, B7. Set a number format for the column 'label' in Excel or LibreOffice, "
            "and save the file."
        ),
        workbook(
            "reviews.xlsx",
            ["text", "label"],
            *([f"film {row}", 10_000_000 + row % 2] for row in range(6)),
            formats={"B": "yyyy-mm-dd"},
        ),
    ),
    Case(
        "a json file that contains no table",
        "plan text.yaml data=reviews.json",
        (
            "Problem:\n"
            "  reviews.json must contain a table. Got an object with the keys 'name', 'version'. Write a "
            "list of objects, an object of columns, or one object on each line."
        ),
        write("reviews.json", '{"name": "reviews", "version": 2}'),
    ),
    Case(
        "NA among numeric labels",
        "plan text.yaml",
        (
            "Problem:\n"
            "  The label column must contain a number in every row. Got 'NA' for 'train:1', 'n/a' for "
            "'train:3'. Write numbers there, or remove these rows. If the labels are class names, set "
            "data.target: single_label."
        ),
        rows("reviews.csv", "text,label", "a,0.5", "b,NA", "c,1.5", "d,n/a", "e,2.5"),
    ),
    Case(
        "ambiguous commas in numbers (decimal mark or thousands separator)",
        "plan text.yaml",
        (
            "Problem:\n"
            "  data.decimal must be set, because a comma can be a decimal mark or a thousands separator. "
            "Got '1,250', '2,500', '3,750'. Set data.decimal: ',' if these are numbers with decimal "
            "commas; otherwise write them without commas."
        ),
        rows("reviews.csv", "text;label", "a;1,250", "b;2,500", "c;3,750", "d;2,500"),
    ),
    Case(
        "a split column with an unknown split name",
        "plan text.yaml",
        (
            "Problem:\n"
            "  data.columns.split must be a column with a split name in every row. Got 'split' with "
            "'extra'. Known: train, validation (val, valid, dev) and test. Set data.columns.split: null to "
            "ignore the column."
        ),
        rows(
            "reviews.csv",
            "text,label,split",
            *(f"{pair},{('train', 'test', 'extra')[row % 3]}" for row, pair in enumerate(PAIRS)),
        ),
    ),
    Case(
        "two candidate files for one split",
        "plan text.yaml data=tables",
        (
            "Problem:\n"
            "  data.path must contain one file for the train split, or its numbered parts. Got "
            "'new_train.csv', 'old_train.csv'. Rename the file to use to train.csv, or move the other "
            "files elsewhere."
        ),
        do(copy("reviews.csv", "tables/new_train.csv"), copy("reviews.csv", "tables/old_train.csv")),
    ),
]
