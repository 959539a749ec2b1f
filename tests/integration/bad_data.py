"""Bad inputs: labelled data."""

from bad_input_case import Case
from bad_input_steps import change, copy, delete, do, rows, text, write

__all__ = ["CASES"]

PAIRS = [f"the film {number},{label}" for number in range(6) for label in ("bad", "good")]

CASES = [
    Case("data whose path has a typing error", "run recipe.yaml data=./photo", "TODO"),
    Case("a Hub dataset without a network", "run recipe.yaml data=ethz/food101", "TODO"),
    Case("data in a file of an unknown format", "run text.yaml data=reviews.xlsx", "TODO", copy("reviews.csv", "reviews.xlsx")),
    Case("a folder without data", "run recipe.yaml data=vit", "TODO", delete("vit/config.json", "vit/preprocessor_config.json")),
    Case("a folder with a test split only", "run text.yaml data=tables", "TODO", copy("reviews.csv", "tables/test.csv")),
    Case("a folder of files that name no split", "run text.yaml data=tables", "TODO", do(copy("reviews.csv", "tables/a.csv"), copy("reviews.csv", "tables/b.csv"))),
    Case("a table without rows", "run text.yaml", "TODO", rows("reviews.csv", "text,label")),
    Case("a file of no bytes", "run text.yaml", "TODO", write("reviews.csv", "")),
    Case("a csv with a row of too many cells", "run text.yaml", "TODO", rows("reviews.csv", "text,label", *PAIRS, "a, b, and c,good")),
    Case("a broken jsonl", "run text.yaml data=reviews.jsonl", "TODO", rows("reviews.jsonl", '{"text": "a film", "label": "good"}', '{"text": "a fi')),
    Case("a file that is called Parquet and is none", "run text.yaml data=reviews.parquet", "TODO", copy("reviews.csv", "reviews.parquet")),
    Case("no column that looks like texts", "run text.yaml", "TODO", change("reviews.csv", "text,label", "a,label")),
    Case(
        "several columns that look like texts",
        "run text.yaml",
        "TODO",
        rows("reviews.csv", "review,title,label", *(pair.replace(",", ",so it is,") for pair in PAIRS)),
    ),
    Case("a label column that is not there", "run text.yaml data.columns.label=lable", "TODO"),
    Case("a text column of numbers", "run text.yaml data.columns.text=year", "TODO", rows("reviews.csv", "text,year,label", *(pair.replace(",", ",1999,") for pair in PAIRS))),
    Case("rows without a label", "run text.yaml", "TODO", text("reviews.csv", "{}a film,\nanother film,\n")),
    Case("empty texts", "run text.yaml", "TODO", text("reviews.csv", "{},good\n  ,bad\n")),
    Case("data of one class", "run text.yaml", "TODO", rows("reviews.csv", "text,label", *(f"film {n},good" for n in range(9)))),
    Case("too few examples of a class", "run text.yaml", "TODO", text("reviews.csv", "{}a film,fine\n")),
    Case(
        "a class in the test split only",
        "run text.yaml data=tables",
        "TODO",
        do(copy("reviews.csv", "tables/train.csv"), rows("tables/test.csv", "text,label", "a film,dull", "the plot,good")),
    ),
    Case(
        "the same text in train and test",
        "run text.yaml data=tables",
        "TODO",
        do(copy("reviews.csv", "tables/train.csv"), rows("tables/test.csv", "text,label", "The Film Good,good", "a plot,bad")),
    ),
    Case(
        "the same image in train and test",
        "run recipe.yaml data=split",
        "TODO",
        do(copy("photos", "split/train"), copy("photos/tea/0.png", "split/test/tea/0.png")),
    ),
    Case("a group column that is not there", "run text.yaml data.split.group=author", "TODO"),
    Case(
        "rows without a group, and too few groups",
        "run text.yaml data.split.group=author",
        "TODO",
        rows("reviews.csv", "text,author,label", *(pair.replace(",", ",ann,") for pair in PAIRS), "a film,,good"),
    ),
    Case(
        "images that cannot be read",
        "run recipe.yaml",
        "TODO",
        do(write("photos/tea/0.png", ""), write("photos/tea/1.png", "no image"), lambda folder: write("photos/cake/0.png", (folder / "photos/cake/0.png").read_bytes()[:50])(folder)),
    ),
    Case(
        "images that cannot be read, left out, so that a split is empty",
        "run recipe.yaml data=split data.on_error=skip",
        "TODO",
        do(copy("photos", "split/train"), write("split/test/tea/0.png", "no image")),
    ),
    Case(
        "a table that names an image which is not there",
        "run recipe.yaml data=images.csv",
        "TODO",
        rows("images.csv", "image,label", *(f"photos/{name}/{n}.png,{name}" for name in ("cake", "tea") for n in range(7))),
    ),
    Case("pictures beside the class folders", "run recipe.yaml", "TODO", copy("photos/tea/0.png", "photos/0.png")),
    Case("pictures too deep in a class folder", "run recipe.yaml", "TODO", do(copy("photos/tea", "photos/tea/more"))),
    Case("single labels read as several", "run text.yaml data.target=multi_label", "TODO"),
    Case("texts read as amounts", "run text.yaml data.target=regression", "TODO"),
    Case(
        "rows of zeros and ones for several labels",
        "run text.yaml data=reviews.jsonl",
        "TODO",
        rows("reviews.jsonl", *(f'{{"text": "film {n}", "label": [0, {n % 2}, 1]}}' for n in range(12))),
    ),
    Case("an amount that the Trainer ignores", "run text.yaml", "TODO", rows("reviews.csv", "text,label", "a,0.5", "b,-100", "c,1.5", "d,2.5")),
    Case("texts longer than the checkpoint takes", "run text.yaml data.max_length=64", "TODO"),
    Case("a limit that leaves one class", "run text.yaml data.limit=1", "TODO"),
]
