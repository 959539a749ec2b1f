"""Image files: pixels that are read, messages, and memory use."""

import io
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hf_finetune.tasks.image import files as image_files
from hf_finetune.tasks.image.feature import RgbImageFeature
from hf_finetune.tasks.image.files import ImageError, ImageFacts, read_image
from hf_finetune.tasks.image.large_images import PixelBudget, ReducedImageCache
from hf_finetune.tasks.image.notes import ImageNotes


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with_declared_size(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def small_limit(monkeypatch):
    """Let a picture be large from 10,000 pixels on."""
    kept = ReducedImageCache()
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 10_000)
    monkeypatch.setattr(image_files, "LARGE_EDGE", 40)
    monkeypatch.setattr(image_files, "reduced_image_cache", lambda: kept)
    return kept


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_used_with_a_warning(kind):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    image, facts = read_image(encoded(first, kind, save_all=True, append_images=[second]))
    assert np.allclose(image.getpixel((4, 4)), (255, 0, 0), atol=3)
    assert facts.has_frames
    assert not read_image(encoded(first, kind))[1].has_frames


def test_the_ending_of_a_file_does_not_matter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (8, 8), "red")))
    assert read_image(tmp_path / "a.jpg")[0].getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [3_000_000, 70_000_000])
def test_text_in_a_png_is_left_out(size):
    """Pillow refuses a file with so much text, which image generators write."""
    info = PngInfo()
    info.add_text("workflow", "x" * size, zip=size < 10_000_000)
    image, _ = read_image(encoded(Image.new("RGB", (8, 8), "red"), pnginfo=info))
    assert image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"no image", "a file in an unknown format"),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "a file in the unsupported format heic. Install HEIC support with `pip install",
        ),
        (b"%PDF-1.7", "a file in the unsupported format pdf. Render these files as PNG"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "a file in the unsupported format eps. Render these files as PNG",
        ),
    ],
)
def test_files_that_are_no_images_are_reported(data, words):
    if b"heic" in data and "HEIF" in image_files.IMAGE_FORMATS:
        pytest.skip("pillow-heif is installed")
    with pytest.raises(ImageError) as error:
        read_image(data)
    assert str(error.value).startswith(words)


def test_an_image_beyond_the_limit_is_refused_with_its_size_and_a_fix():
    with pytest.raises(ImageError) as error:
        read_image(png_with_declared_size(40_000, 30_000))
    assert str(error.value) == (
        "an image of 1,200 megapixels; at most 179 megapixels are supported. Cut it into tiles or reduce it first, "
        "for example with `vips thumbnail FILE small.png 4096`"
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_large_image_is_decoded_once_and_reduced(kind, small_limit, monkeypatch, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    image = Image.new("RGB", (400, 200), "white")
    image.paste((0, 0, 0), (0, 0, 80, 80))
    (tmp_path / "a").write_bytes(encoded(image, kind, exif=exif))
    decoded = []
    monkeypatch.setattr(image_files, "convert", lambda *given: decoded.append(1) or CONVERT(*given))
    first, facts = read_image(tmp_path / "a")
    again, _ = read_image(tmp_path / "a")
    assert (first.size, again.tobytes() == first.tobytes(), len(decoded)) == ((40, 80), True, 1)
    assert sorted(facts.reduced_from) == [200, 400]
    assert max(first.getpixel((38, 2))) < 50
    assert min(first.getpixel((2, 2))) > 200
    assert small_limit.bytes > 0


CONVERT = image_files.convert


def test_a_changed_file_is_read_again(small_limit, tmp_path):
    for color in ("red", "blue"):
        Image.new("RGB", (400, 200), color).save(tmp_path / "a.bmp")
        assert (
            read_image(tmp_path / "a.bmp")[0].getcolors()[0][1]
            == {"red": (255, 0, 0), "blue": (0, 0, 255)}[color]
        )


def test_rows_of_a_dataset_are_read_the_same_way(small_limit, tmp_path):
    deep = Image.fromarray(np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16))
    deep.save(tmp_path / "a.tif")
    rows = [{"path": str(tmp_path / "a.tif"), "bytes": None}, {"path": None, "bytes": encoded(deep)}]
    dataset = Dataset.from_dict({"image": rows}).cast_column("image", RgbImageFeature())
    for row in dataset.select([0, 1]).add_column("id", ["a", "b"]):
        assert (row["image"].mode, row["image"].getextrema()[0]) == ("RGB", (0, 255))


def test_few_pixels_are_decoded_at_a_time():
    budget, running, most, lock = PixelBudget(100), [0], [0], threading.Lock()
    barrier = threading.Barrier(8)

    def decode(pixels):
        barrier.wait(10)
        with budget.reserve(pixels):
            with lock:
                running[0] += pixels
                most[0] = max(most[0], running[0])
            threading.Event().wait(0.01)
            with lock:
                running[0] -= pixels

    threads = [
        threading.Thread(target=decode, args=(pixels,)) for pixels in (40, 40, 40, 40, 300, 300, 60, 60)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (running[0], budget.used, most[0]) == (0, 0, 300)


MEMORY = """
import resource, sys
from pathlib import Path
from datasets import Dataset
from PIL import Image
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.tasks.image import stored
from hf_finetune.tasks.image.feature import RgbImageFeature

stored._THREADS = 8
Image.MAX_IMAGE_PIXELS = 30_000_000  # so that Pillow would warn of each
files = sorted(map(str, Path(sys.argv[1]).iterdir()))
dataset = Dataset.from_dict({"image": files}).cast_column("image", RgbImageFeature())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
check = stored.ImageCheck()
faults = check.faults(dataset, files)
with keep_freed_memory(True):
    for row in dataset:
        row["image"]
print(set(faults), len(check.notes()), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_the_memory_for_large_images_does_not_grow_with_their_number(tmp_path):
    """Each of 40 megapixels takes 160 MB once decoded; 8 threads would hold all of them, and copies."""
    for number in range(5):
        Image.new("RGBA" if number % 2 else "RGB", (8000, 5000)).save(
            tmp_path / f"{number}.png", compress_level=1
        )
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    *faults, notes, megabytes = done.stdout.split()
    assert (faults, notes, done.stderr) == (["{None}"], "1", "")
    assert int(megabytes) < 2 * 160


def test_notes():
    notes = ImageNotes()
    assert notes.sentences() == []
    twelve = image_files.convert(Image.fromarray(np.array([[0, 4000]], np.uint16)))[1]
    holes = image_files.convert(Image.fromarray(np.array([[0, 1, np.nan]], np.float32)))[1]
    for name, facts in [
        ("plain.png", ImageFacts()),
        ("a.tif", ImageFacts(twelve)),
        ("b.tif", ImageFacts(holes)),
        ("c.gif", ImageFacts(has_frames=True)),
        *((f"{number}.png", ImageFacts(reduced_from=(13000, 12000))) for number in range(10)),
    ]:
        notes.add(name, facts)
    assert notes.sentences() == [
        "Images of more than 8 bits were scaled to 0..255, from 0..4095 (12 bits): 'a.tif'; from 0..1: 'b.tif'.",
        "Their ranges differ. If these images belong together, save them as 8 bits, scaled from one range.",
        "NaN values were replaced by the lowest value: 'b.tif'.",
        "Only the first frame or page is used of 'c.gif'.",
        "Large images are reduced to a shorter edge of 2,048 pixels: "
        + ", ".join(f"'{number}.png' (13,000 x 12,000 pixels)" for number in range(8))
        + " and 2 more.",
    ]
