"""Bad inputs: folders of images, links, metadata files, and paths of images in tables."""

from bad_input_case import Case
from bad_input_steps import Step, copy, do, rows, write

__all__ = ["CASES"]

PATTERN = "\"data.columns.label={from: name, pattern: '^(soup)\\.'}\""


def link(path: str, target: str) -> Step:
    """Create a link."""
    return lambda folder: (folder / path).symlink_to(target)


def pictures(*names: str) -> Step:
    """Write different images below ``pictures``."""
    sources = [f"photos/{kind}/{number}.png" for number in range(6) for kind in ("cake", "soup", "tea")]
    return do(*(copy(source, f"pictures/{name}") for source, name in zip(sources, names, strict=False)))


def unpack(path: str) -> Step:
    """Write an archive."""
    return write(path, b"PK\x05\x06" + bytes(18))


GIF = "R0lGODdhAQABAIEAAAECAwAAAAAAAAAAACwAAAAAAQABAAAIBAABBAQAOw=="

CASES = [
    Case(
        "split folders with unlabeled images",
        "run recipe.yaml data=./pictures",
        (
            "2 problems:\n"
            "  ./pictures/test must contain one folder of pictures per class, or a file metadata.csv with "
            "the labels. Got only files without labels: '0.png'. Create a folder for each class, or add "
            "metadata.csv with the columns file_name and label.\n"
            "  ./pictures/train must contain one folder of pictures per class, or a file metadata.csv with "
            "the labels. Got only files without labels: '0.png', '1.png'. Create a folder for each class, "
            "or add metadata.csv with the columns file_name and label."
        ),
        pictures("train/0.png", "train/1.png", "test/0.png"),
    ),
    Case(
        "images with the class in their file names",
        "run recipe.yaml data=./pictures",
        (
            "Problem:\n"
            "  ./pictures must contain one folder of pictures per class, or a file metadata.csv with the "
            "labels. Got only files without labels: 'cake.0.png', 'cake.1.png', 'soup.0.png', "
            "'soup.1.png'. If their names contain the class, set data.columns.label: {from: name, pattern: "
            "'^(.+?)[._ -]*\\(?\\d+\\)?\\.\\w+$'}."
        ),
        pictures("cake.0.png", "soup.0.png", "cake.1.png", "soup.1.png"),
    ),
    Case(
        "a pattern that does not match every file name",
        f"run recipe.yaml data=./pictures {PATTERN}",
        (
            "Problem:\n"
            "  data.columns.label.pattern must match the name of every file. Got '^(soup)\\\\.', which does "
            "not match 'cake.0.png'. Fix the pattern, or move these files elsewhere."
        ),
        pictures("cake.0.png", "soup.0.png"),
    ),
    Case(
        "a split folder next to class folders",
        "run recipe.yaml data=./pictures",
        (
            "Problem:\n"
            "  ./pictures must contain either split folders or class folders. Got 'train' (a split name) "
            "and 'bus', 'car'. If 'train' is a class, rename it; if it is a split, move the other folders "
            "elsewhere."
        ),
        pictures("train/a/0.png", "train/b/1.png", "bus/2.png", "car/3.png"),
    ),
    Case(
        "split folders in class folders",
        "run recipe.yaml data=./pictures data.nested=join",
        (
            "2 problems:\n"
            "  a must be inside the split folders, not contain them. Got 'a/test', 'a/train'. Move them, "
            "for example to 'test/a'.\n"
            "  b must be inside the split folders, not contain them. Got 'b/test', 'b/train'. Move them, "
            "for example to 'test/b'."
        ),
        pictures("a/train/0.png", "a/test/1.png", "b/train/2.png", "b/test/3.png"),
    ),
    Case(
        "a circular link",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  ./photos/tea/again must not be a link to one of its parent folders. Got a link to "
            "'./photos'. Remove the link."
        ),
        link("photos/tea/again", ".."),
    ),
    Case(
        "a broken link as class folder",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  ./photos/bun must be a link to an existing file or folder. Got a link to '../bun'. Fix or "
            "remove the link."
        ),
        link("photos/bun", "../bun"),
    ),
    Case(
        "a metadata file without labels",
        "run recipe.yaml data=./pictures",
        (
            "Problem:\n"
            "  './pictures/metadata.csv' must have a label column in addition to 'file_name'. Got no other "
            "column."
        ),
        do(pictures("train/0.png", "test/0.png"), rows("pictures/metadata.csv", "file_name", "train/0.png")),
    ),
    Case(
        "a metadata file that contradicts the class folders",
        "run recipe.yaml data=./pictures",
        (
            "Problem:\n"
            "  The data must have the same labels in its folders and in the column 'label' of its metadata "
            "files. Got 3 differences: './pictures/part1/0.png' is 'a' in the column. Set "
            "data.columns.label: label if the folders are not classes; otherwise remove the column."
        ),
        do(
            pictures("part1/0.png", "part1/1.png", "part2/0.png"),
            rows(
                "pictures/metadata.csv", "file_name,label", "part1/0.png,a", "part1/1.png,b", "part2/0.png,a"
            ),
        ),
    ),
    Case(
        "URLs instead of image paths",
        "run recipe.yaml data=./urls.csv",
        (
            "Problem:\n"
            "  data.columns.image must contain file paths, not URLs. Got 'https://pictures.example/1.png', "
            "'https://pictures.example/2.png'. Download the images, and replace the URLs by the paths of "
            "the files."
        ),
        rows(
            "urls.csv", "image,label", "https://pictures.example/1.png,a", "https://pictures.example/2.png,b"
        ),
    ),
    Case(
        "base64-encoded images instead of image paths",
        "run recipe.yaml data=./base64.csv",
        (
            "Problem:\n"
            "  data.columns.image must contain file paths, not base64-encoded images or data URIs. Got "
            f"'data:image/gif;base64,{GIF}', '{GIF}'. Write each image to a file and its path into the "
            f"table, or the bytes of the images into a "
            "column of a parquet file."
        ),
        rows("base64.csv", "image,label", f'"data:image/gif;base64,{GIF}",a', f"{GIF},b"),
    ),
    Case(
        "image paths that are too long",
        "run recipe.yaml data=./long.csv",
        (
            "Problem:\n"
            f"  data.columns.image must contain paths of existing pictures. Got 'a{'x' * 99}...', 'b{'x' * 99}...'. "
            "These files do not exist in '.'. Write paths relative to the folder of the table."
        ),
        rows("long.csv", "image,label", f"a{'x' * 300}.png,a", f"b{'x' * 300}.png,b"),
    ),
    Case(
        "an ambiguous file name",
        "run recipe.yaml data=./names.csv",
        (
            "Problem:\n"
            "  '0.png' must match exactly one file. Got 'photos/cake/0.png', 'photos/soup/0.png', "
            "'photos/tea/0.png'. Write the path relative to the folder of the table, with its suffix."
        ),
        rows("names.csv", "image,label", "cake/0.png,a", "0.png,b"),
    ),
    Case(
        "paths of which none exists",
        "run recipe.yaml data=./names.csv",
        (
            "Problem:\n"
            "  data.columns.image must contain paths of existing pictures. Got 'D:\\\\cake\\\\0.png', "
            "'D:\\\\tea\\\\0.png'. These files do not exist in '.'. Write paths relative to the folder of the "
            "table."
        ),
        rows("names.csv", "image,label", "D:\\cake\\0.png,a", "D:\\tea\\0.png,b"),
    ),
    Case(
        "an archive as data",
        "run recipe.yaml data=./photos.zip",
        (
            "Problem:\n"
            "  data.path must be a file of a known format. Got './photos.zip'. Unpack it, and set data.path "
            "to the folder."
        ),
        unpack("photos.zip"),
    ),
    Case(
        "text files outside class folders",
        "run text.yaml data=./texts",
        (
            "Problem:\n"
            "  data.path must contain class folders of .txt files, or csv, tsv, json, jsonl, parquet or "
            "xlsx files, or a dataset saved by save_to_disk. Got './texts'."
        ),
        do(write("texts/1.txt", "a film"), write("texts/2.txt", "a plot")),
    ),
]
