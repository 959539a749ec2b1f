"""Images of more than 8 bits, of floats and of rare modes: scaled by one rule for each kind, or an error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from hf_finetune.tasks.image.rgb import ImageError, convert, reduce_to, shrink, to_rgb

CT, WIDER = "-1024..3071 (Hounsfield units of a CT)", "-4096..4095 (13 bits, signed)"
ITSELF = "its own lowest to its highest value"


def ramp(low, high, kind="float32"):
    """Return an image whose values rise evenly from its first to its last pixel."""
    return Image.fromarray(np.linspace(low, high, 4096).reshape(64, 64).astype(kind))


def through_file(image, kind="TIFF", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def png_of_16_bit_colors(values):
    """Return a PNG of 16-bit colors, which Pillow cannot write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("low", "high", "kind", "name", "black", "white"),
    [
        (0, 1, "float32", "0..1", 0, 255),
        (0.25, 0.75, "float32", "0..1", 64, 191),
        (-0.05, 1.05, "float32", "0..1", 0, 255),  # as interpolation leaves it
        (-1, 1, "float32", "-1..1", 0, 255),
        (0, 255, "float32", "0..255 (8 bits)", 0, 255),
        (0, 4095, "float32", "0..4095 (12 bits)", 0, 255),
        (-1000, 3000, "float32", CT, 1, 251),
        (-3, 3, "float32", ITSELF, 0, 255),  # standardized
        (0, 10, "float32", ITSELF, 0, 255),
        (0, 200, "uint16", "0..255 (8 bits)", 0, 200),
        (0, 1023, "uint16", "0..1023 (10 bits)", 0, 255),
        (0, 4000, "uint16", "0..4095 (12 bits)", 0, 249),
        (0, 16383, "uint16", "0..16383 (14 bits)", 0, 255),
        (0, 65535, "uint16", "0..65535 (16 bits)", 0, 255),
        (29000, 31000, "uint16", ITSELF, 0, 255),  # a thermal camera
        (-1000, 3000, "int32", CT, 1, 251),
        (-2000, 3000, "int32", WIDER, 65, 221),
        (-30000, 30000, "int32", "-32768..32767 (16 bits, signed)", 11, 244),
        (0, 1, "int32", ITSELF, 0, 255),  # a mask
        (0, 100000, "int32", ITSELF, 0, 255),
    ],
)
def test_the_narrowest_common_range_that_contains_all_values(low, high, kind, name, black, white):
    image, values = convert(through_file(ramp(low, high, kind)))
    shown = np.asarray(image)
    assert (values.name, image.mode) == (name, "RGB")
    assert (shown.min(), shown.max()) == (black, white)
    gray = shown[..., 0].ravel().astype(int)
    assert (np.diff(gray) >= 0).all()  # and brighter pixels stay brighter


@pytest.mark.parametrize(
    ("value", "kind", "gray"), [(7, "uint16", 7), (-5, "int32", 63), (0.5, "float32", 128)]
)
def test_a_constant_image(value, kind, gray):
    assert to_rgb(ramp(value, value, kind)).getextrema() == ((gray, gray),) * 3


def test_values_that_are_not_numbers():
    values = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    values[0, :3] = np.nan, np.inf, -np.inf
    image, facts = convert(through_file(Image.fromarray(values)))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 255, 0]
    assert facts.has_nan
    with pytest.raises(ImageError, match="only NaN values"):
        to_rgb(Image.fromarray(np.full((4, 4), np.nan, np.float32)))


def test_white_is_zero_in_some_files():
    """Pillow inverts such a TIFF of 8 bits, and not one of 16."""
    image = to_rgb(through_file(ramp(0, 65535, "uint16"), tiffinfo={262: 0}))
    assert (image.getpixel((0, 0)), image.getpixel((63, 63))) == ((255,) * 3, (0,) * 3)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_the_order_of_bytes_does_not_matter(mode):
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (64, 64), np.arange(4096).astype(order).tobytes())
    assert to_rgb(image).tobytes() == to_rgb(ramp(0, 4095, "uint16")).tobytes()


def test_colors_of_12_bits_in_16_are_refused():
    """Pillow keeps the higher 8 bits, which hold almost nothing."""
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 3))
    with pytest.raises(ImageError, match=r"only the lower 12 bits.*Save it with 8 bits"):
        to_rgb(Image.open(io.BytesIO(png_of_16_bit_colors(values))))
    whole = to_rgb(Image.open(io.BytesIO(png_of_16_bit_colors(values * 16))))
    assert np.asarray(whole).max() > 200


def test_lab_comes_out_in_its_colors():
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 4), (200, 100, 50)), srgb, lab, outputMode="LAB")
    assert np.allclose(to_rgb(through_file(image)).getpixel((0, 0)), (200, 100, 50), atol=2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "CMYK", "I;16", "F"])
def test_averaging_while_converting_is_averaging_afterwards(mode, monkeypatch):
    """Strips change nothing: here they have three rows, and the last one two."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8))
    if mode in ("I;16", "F"):
        image = Image.fromarray(
            rng.integers(0, 65536, (50, 40)).astype("uint16" if mode == "I;16" else "float32")
        )
    elif mode == "RGBA":
        image.putalpha(image.convert("L"))
    else:
        image = image.convert(mode)
    whole = to_rgb(image)
    monkeypatch.setattr("hf_finetune.tasks.image.rgb._STRIP_PIXELS", 130)
    assert to_rgb(image).tobytes() == whole.tobytes()
    assert convert(image, 3)[0].tobytes() == whole.reduce(3).tobytes()


def test_only_much_larger_images_are_resized_but_all_are_decoded_at_reduced_size():
    image = Image.new("RGB", (140, 280))
    assert shrink(image, 100) is image
    assert reduce_to(image, 100).size == (100, 200)
    assert reduce_to(image, 140) is image


EXIF = {
    "no hexadecimal digits": "\nexif\n  10\nzzzz",
    "nothing": "\nexif\n  0\n",
    "half a head": "\nexif\n  10\n" + b"Exif\0\0II".hex(),
    "a wrong head": "\nexif\n  20\n" + (b"Exif\0\0XX*\0" + bytes(8)).hex(),
    "a cut list": "\nexif\n  20\n" + (b"Exif\0\0II*\0\x08\0\0\0\x05\0").hex(),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("exif", EXIF.values(), ids=EXIF)
def test_damaged_metadata_is_ignored(mode, exif):
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", exif)
    image = Image.new("RGB", (4, 2), (200, 100, 50)).convert(mode)
    assert to_rgb(through_file(image, "PNG", pnginfo=info)).tobytes() == to_rgb(image).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_is_rotated_once(kind, mode):
    values = np.repeat(np.arange(0, 240, 30, dtype=np.uint8), 16).reshape(8, 16)
    image = Image.fromarray(np.stack([values] * 3, axis=-1)).convert(mode)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        opened = through_file(image, kind, exif=exif)
        expected = ImageOps.exif_transpose(opened).convert("RGB")
        turned = to_rgb(opened)
        assert turned.tobytes() == expected.tobytes()
        assert to_rgb(turned).tobytes() == expected.tobytes()
