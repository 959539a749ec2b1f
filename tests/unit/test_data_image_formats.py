"""Which files are images, and the message for files that have to be converted first."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from hf_finetune.tasks.image.formats import (
    IMAGE_FORMATS,
    IMAGE_SUFFIXES,
    conversion_of,
    sniffed_conversion,
    unreadable_problems,
)


def test_formats_that_pillow_decodes_are_images():
    common = {
        ".jpg",
        ".jpeg",
        ".png",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".jp2",
        ".ppm",
        ".tga",
    }
    assert common | {".mpo", ".qoi", ".psd", ".ico", ".apng", ".pfm"} <= IMAGE_SUFFIXES
    readable = {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name in IMAGE_FORMATS
    }
    assert readable <= IMAGE_SUFFIXES


@pytest.mark.parametrize(
    "suffix", [".eps", ".ps", ".pdf", ".mpg", ".wmf", ".h5", ".grib", ".bufr", ".iim", ".mp4"]
)
def test_programs_documents_videos_and_stubs_are_no_pictures(suffix):
    assert suffix not in IMAGE_SUFFIXES


def test_no_format_needs_another_program():
    assert "EPS" not in IMAGE_FORMATS
    factories = [Image.OPEN[name][0] for name in IMAGE_FORMATS]
    stubs = [
        each for each in factories if isinstance(each, type) and issubclass(each, ImageFile.StubImageFile)
    ]
    assert stubs == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.SVG", "rsvg"), ("b.CR2", "raw"), ("c.dcm", "pydicom"), ("d.nii.gz", "slices"), ("e.jxl", "djxl")],
)
def test_the_way_to_convert(name, words):
    assert words in conversion_of(name)


def test_images_and_unknown_files_have_no_message():
    assert conversion_of("a.avif") is None
    assert conversion_of("notes.txt") is None


def test_files_are_known_by_how_they_begin():
    assert sniffed_conversion(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")[0] == "heic"
    assert sniffed_conversion(b"%PDF-1.7")[0] == "pdf"
    assert sniffed_conversion(b"<?xml version='1.0'?>\n<svg xmlns='x'>")[0] == "svg"
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    assert sniffed_conversion(buffer.getvalue()) is None


def test_a_folder_of_files_that_cannot_be_read_is_a_problem_with_its_repair():
    problems = unreadable_problems("bird", [Path("bird/1.svg"), Path("bird/2.svg"), Path("bird/3.png")])
    assert [str(problem) for problem in problems] == [
        "bird must contain images in supported formats. Got '1.svg', '2.svg'. Render these files as PNG, for "
        "example with `rsvg-convert -w 512 FILE.svg -o FILE.png`."
    ]


def test_raw_files_with_their_jpeg_and_videos_with_images_are_ignored():
    beside = [Path("a/1.CR2"), Path("a/1.JPG"), Path("a/1.MOV")]
    assert unreadable_problems("a", beside) == []
    assert [problem.value for problem in unreadable_problems("a", [Path("a/1.MOV")])] == ["'1.MOV'"]


@pytest.mark.skipif(".heic" in IMAGE_SUFFIXES, reason="pillow-heif is installed")
def test_heic_without_its_extra_names_the_extra():
    (problem,) = unreadable_problems("bird", [Path("bird/IMG_1.HEIC")])
    assert "pip install 'hf-finetune[heif]'" in problem.repair


@pytest.mark.skipif(".heic" not in IMAGE_SUFFIXES, reason="pillow-heif is not installed")
def test_heic_with_its_extra_is_a_picture():
    assert unreadable_problems("bird", [Path("bird/IMG_1.HEIC")]) == []
    assert "HEIF" in IMAGE_FORMATS


def test_a_folder_of_images_without_extension_is_reported_and_not_skipped(tmp_path):
    for name in ("face1", "face2.normal"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    (tmp_path / "notes").write_text("no picture")
    files = sorted(tmp_path.iterdir())
    (problem,) = unreadable_problems("bird", files)
    assert str(problem) == (
        "bird must contain images in supported formats. Got 'face1', 'face2.normal'. Add the suffix of the "
        "format to the file names, for example 'face1.png'."
    )
    assert unreadable_problems("bird", [*files, Path("bird/1.png")]) == []
