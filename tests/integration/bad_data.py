"""Bad inputs: labelled data."""

from bad_input_case import Case
from bad_input_steps import copy, cut, delete, do, rows, text, write

__all__ = ["CASES"]

PAIRS = [f"the film {number},{label}" for number in range(6) for label in ("bad", "good")]

CASES = [
    Case(
        "a misspelled data path",
        "run recipe.yaml data=./photo",
        (
            "Problem:\n"
            "  data.path must be a folder, a data file or a Hub id. Got './photo'. Nearest: "
            "'./photos'."
        ),
    ),
    Case(
        "an unknown column in `evaluation.slices`",
        "run text.yaml 'evaluation.slices=[style]'",
        (
            "Problem:\n"
            "  evaluation.slices[0] must be a column of the train split. Got 'style'. Its columns are "
            "'text', 'label'."
        ),
    ),
    Case(
        "a Hub dataset without network access",
        "run recipe.yaml data=ethz/food101",
        (
            "Problem:\n"
            "  data.path must be local if the Hub cannot be reached. Got 'ethz/food101'. It does not exist "
            "in '.' either. Check the path, or connect to the Hub and try again."
        ),
    ),
    Case(
        "a data file in an unknown format",
        "run text.yaml data=reviews.ods",
        (
            "Problem:\n"
            "  data.path must be a file of a known format. Got './reviews.ods'. Known: csv, tsv, json, "
            "jsonl (also with .gz), parquet, xlsx."
        ),
        copy("reviews.csv", "reviews.ods"),
    ),
    Case(
        "a folder without data",
        "run recipe.yaml data=vit",
        (
            "2 problems:\n"
            "  data.path must contain class folders of images, or csv, tsv, json, jsonl, parquet or xlsx "
            "files, or a dataset saved by save_to_disk. Got './vit'.\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got "
            "'./vit'. It has no config.json."
        ),
        delete("vit/config.json", "vit/preprocessor_config.json"),
    ),
    Case(
        "a folder with only a test split",
        "run text.yaml data=tables",
        ("Problem:\n  data.path must have a train split. Got only 'test'."),
        copy("reviews.csv", "tables/test.csv"),
    ),
    Case(
        "a folder of files that are not named after splits",
        "run text.yaml data=tables",
        (
            "Problem:\n"
            "  data.path must contain files named after their split. Got 'a.csv', 'b.csv'. Rename one file "
            "to train (train.csv, train-00000.parquet), or set data.path to a single file."
        ),
        do(copy("reviews.csv", "tables/a.csv"), copy("reviews.csv", "tables/b.csv")),
    ),
    Case(
        "a table without rows",
        "run text.yaml",
        ("Problem:\n  The train split must not be empty."),
        rows("reviews.csv", "text,label"),
    ),
    Case(
        "an empty file",
        "run text.yaml",
        ("Problem:\n  reviews.csv must not be empty."),
        write("reviews.csv", ""),
    ),
    Case(
        "a csv row with too many cells",
        "run text.yaml",
        (
            "Problem:\n"
            "  reviews.csv must have 2 cells in each row, as in its header. Got 4 cells in line 14. Quote each "
            "cell that contains ',', or set data.separator if another character separates the cells."
        ),
        rows("reviews.csv", "text,label", *PAIRS, "a, b, and c,good"),
    ),
    Case(
        "an invalid jsonl file",
        "run text.yaml data=reviews.jsonl",
        (
            "Problem:\n"
            "  reviews.jsonl must be readable as json. Got Unterminated string starting at in line 2. Write "
            "a JSON object on each line of a jsonl file, or a list of objects in a json file."
        ),
        rows("reviews.jsonl", '{"text": "a film", "label": "good"}', '{"text": "a fi'),
    ),
    Case(
        "a .parquet file in another format",
        "run text.yaml data=reviews.parquet",
        (
            "Problem:\n"
            "  reviews.parquet must be readable as parquet. Got ArrowInvalid: Parquet magic bytes "
            "not found in footer. Either the file is corrupted or this is not a parquet file."
        ),
        copy("reviews.csv", "reviews.parquet"),
    ),
    Case(
        "no column with texts",
        "run text.yaml",
        (
            "Problem:\n"
            "  data.columns.text must be set, because no column looks like texts. Got columns 'a', 'b', "
            "'label'. Set data.columns.text to one of them."
        ),
        rows("reviews.csv", "a,b,label", *(pair.replace(",", ",so it is,") for pair in PAIRS)),
    ),
    Case(
        "several columns with texts",
        "run text.yaml",
        (
            "Problem:\n"
            "  data.columns.text must be set, because several columns look like texts. Got 'review', "
            "'title'. Set data.columns.text to one of them."
        ),
        rows("reviews.csv", "review,title,label", *(pair.replace(",", ",so it is,") for pair in PAIRS)),
    ),
    Case(
        "a label column that does not exist",
        "run text.yaml data.columns.label=lable",
        ("Problem:\n  data.columns.label must be a column of the data. Got 'lable'. Nearest: 'label'."),
    ),
    Case(
        "a text column of numbers",
        "run text.yaml data=reviews.jsonl data.columns.text=year",
        ("Problem:\n  data.columns.text must contain strings. Got 'year' of type int64."),
        rows(
            "reviews.jsonl",
            *(f'{{"text": "film {n}", "year": 1999, "label": "{"ab"[n % 2]}"}}' for n in range(12)),
        ),
    ),
    Case(
        "rows without a label",
        "run text.yaml",
        (
            "Problem:\n"
            "  The label column must contain a label in every row. Got missing labels in 'train:12', "
            "'train:13'. Label these rows or remove them."
        ),
        text("reviews.csv", "{}a film,\nanother film,\n"),
    ),
    Case(
        "empty texts",
        "run text.yaml",
        (
            "2 problems:\n"
            "  train:12 must contain text. Got an empty text. Replace or remove it, or set data.on_error: "
            "skip.\n"
            "  train:13 must contain text. Got an empty text. Replace or remove it, or set data.on_error: "
            "skip."
        ),
        text("reviews.csv", "{},good\n  ,bad\n"),
    ),
    Case(
        "data with one class",
        "run text.yaml",
        ("Problem:\n  The label column must contain at least two classes in train. Got 'good'."),
        rows("reviews.csv", "text,label", *(f"film {n},good" for n in range(9))),
    ),
    Case(
        "whole-number regression labels, all different",
        "run text.yaml",
        (
            "Problem:\n"
            "  Each class must have at least 3 examples, one for each of train, validation, test. "
            "Got '5': 1, '42': 1, '79': 1, '116': 1. If the labels are continuous values, set data.target: "
            "regression. Otherwise add examples, set data.split.validation and data.split.test to 0, or set "
            "data.split.stratify: false."
        ),
        rows("reviews.csv", "text,label", *(f"film {n},{n * 37 + 5}" for n in range(4))),
    ),
    Case(
        "a class with too few examples",
        "run text.yaml",
        (
            "Problem:\n"
            "  Each class must have at least 3 examples, one for each of train, validation, test. "
            "Got 'fine': 1. Add examples, set data.split.validation and data.split.test to 0, or "
            "set data.split.stratify: false."
        ),
        text("reviews.csv", "{}a film,fine\n"),
    ),
    Case(
        "a class that occurs only in the test split",
        "run text.yaml data=tables",
        (
            "Problem:\n"
            "  The test split must contain only classes that are also in train. Got 'dull'. Add examples "
            "of them to train, or remove them."
        ),
        do(
            copy("reviews.csv", "tables/train.csv"),
            rows("tables/test.csv", "text,label", "a film,dull", "the plot,good"),
        ),
    ),
    Case(
        "the same text in train and test",
        "run text.yaml data=tables",
        (
            "Problem:\n"
            "  The data must not contain the same example in train and test. Got 'train:6' = 'test:0'. "
            "Remove one of each, or set data.on_error: skip to remove them from train."
        ),
        do(
            copy("reviews.csv", "tables/train.csv"),
            rows("tables/test.csv", "text,label", "The Film Good,good", "a plot,bad"),
        ),
    ),
    Case(
        "the same image in train and test",
        "run recipe.yaml data=split",
        (
            "Problem:\n"
            "  The data must not contain the same example in train and test. Got 'train/tea/0.png' = "
            "'test/tea/0.png'. Remove one of each, or set data.on_error: skip to remove them from train."
        ),
        do(copy("photos", "split/train"), copy("photos/tea/0.png", "split/test/tea/0.png")),
    ),
    Case(
        "a group column that does not exist",
        "run text.yaml data.split.group=author",
        ("Problem:\n  data.split.group must be a column of the data. Got 'author'. Known: 'text', 'label'."),
    ),
    Case(
        "rows without a group, and too few groups",
        "run text.yaml data.split.group=author",
        (
            "2 problems:\n"
            "  The group column must have a value in every row. Got empty cells in 'train:12'. Add a group "
            "to these rows, or remove them.\n"
            "  data.split.group must have at least 3 groups in train for 3 splits. Got 1. Reduce the "
            "number of splits, or choose another column."
        ),
        rows(
            "reviews.csv",
            "text,author,label",
            *(pair.replace(",", ",ann,") for pair in PAIRS),
            "a film,,good",
        ),
    ),
    Case(
        "unreadable images",
        "run recipe.yaml",
        (
            "3 problems:\n"
            "  cake/0.png must contain a readable image. Got a damaged file (OSError: image file is "
            "truncated). Replace or remove it, or set data.on_error: skip.\n"
            "  tea/0.png must contain a readable image. Got an empty file. Replace or remove it, or "
            "set data.on_error: skip.\n"
            "  tea/1.png must contain a readable image. Got a file in an unknown format. Replace "
            "or remove it, or set data.on_error: skip."
        ),
        do(
            write("photos/tea/0.png", ""), write("photos/tea/1.png", "no image"), cut("photos/cake/0.png", 50)
        ),
    ),
    Case(
        "`on_error: skip` with a split of unreadable images",
        "run recipe.yaml data=split data.on_error=skip",
        ("Problem:\n  The test split must contain at least one usable example."),
        do(copy("photos", "split/train"), write("split/test/tea/0.png", "no image")),
    ),
    Case(
        "a table with paths of missing images",
        "run recipe.yaml data=images.csv",
        (
            "2 problems:\n"
            "  photos/cake/6.png must contain a readable image. Got no such file. Replace or remove it, or "
            "set data.on_error: skip.\n"
            "  photos/tea/6.png must contain a readable image. Got no such file. Replace or remove it, or "
            "set data.on_error: skip."
        ),
        rows(
            "images.csv",
            "image,label",
            *(f"photos/{name}/{n}.png,{name}" for name in ("cake", "tea") for n in range(7)),
        ),
    ),
    Case(
        "images next to the class folders",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  ./photos must not contain pictures outside of the class folders. Got '0.png'. Move them "
            "into the folder of their class."
        ),
        copy("photos/tea/0.png", "photos/0.png"),
    ),
    Case(
        "images in subfolders of a class folder",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  tea must not contain subfolders with pictures. Got 'tea/more/0.png', 'tea/more/1.png', "
            "'tea/more/2.png', 'tea/more/3.png', 'tea/more/4.png', 'tea/more/5.png'. Set data.nested: join "
            "to make each folder a class of its own ('tea/more'), data.nested: top to make the outer "
            "folder the class ('tea'), or move the files up."
        ),
        copy("photos/soup", "photos/tea/more"),
    ),
    Case(
        "single labels with `target: multi_label`",
        "run text.yaml data.target=multi_label",
        (
            "Problem:\n"
            "  The label column must contain several classes per cell if data.target is multi_label. Got "
            "texts, such as 'bad'. Set the separator of the classes: columns: {label: {name: label, "
            'separator: ","}}.'
        ),
    ),
    Case(
        "text labels with `target: regression`",
        "run text.yaml data.target=regression",
        (
            "Problem:\n"
            "  data.target must fit the labels, which are not numbers. Got 'regression'. Remove it, or set "
            "it to auto."
        ),
    ),
    Case(
        "lists of zeros and ones without class names",
        "run text.yaml data=reviews.jsonl",
        (
            "Problem:\n"
            "  The label column must have class names for the positions of its lists. Got lists of 3 "
            "values, such as [0, 0, 1]. Set columns: {label: {name: label, classes: [first, second, "
            "...]}}, with 3 names in the order of the positions."
        ),
        rows("reviews.jsonl", *(f'{{"text": "film {n}", "label": [0, {n % 2}, 1]}}' for n in range(12))),
    ),
    Case(
        "the regression label -100",
        "run text.yaml",
        (
            "Problem:\n"
            "  The label column must not contain -100. Got -100 in 'train:1'. Shift or scale the "
            "labels: the Trainer ignores examples with the label -100."
        ),
        rows("reviews.csv", "text,label", "a,0.5", "b,-100", "c,1.5", "d,2.5"),
    ),
    Case(
        "`max_length` above the maximum of the tokenizer",
        "run text.yaml data.max_length=64",
        "Problem:\n  data.max_length must be at most the 16 tokens that the checkpoint accepts. Got 64.",
    ),
    Case(
        "a limit that leaves one class",
        "run text.yaml data.limit=1",
        ("Problem:\n  The label column must contain at least two classes in train. Got 'bad'."),
    ),
]
