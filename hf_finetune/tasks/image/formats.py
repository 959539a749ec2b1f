"""Supported image formats, and advice on converting files of other formats.

A format is supported if Pillow, or an installed plug-in registered with Pillow, decodes it on every system without an
external program. ``IMAGE_SUFFIXES`` are the suffixes that Pillow registers for these formats.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageFile

from hf_finetune.errors import Problem, join_quoted

__all__ = [
    "IMAGE_FORMATS",
    "IMAGE_SUFFIXES",
    "conversion_of",
    "has_unsupported_image_format",
    "sniffed_conversion",
    "unreadable_problems",
]

HEIF = (".heic", ".heics", ".heif", ".heifs", ".hif")

# Formats that Pillow opens but that are not supported here: EPS is a program, which Pillow runs with Ghostscript; for
# MPEG it reads only the size; IPTC is a metadata record.
_NOT_IMAGES = frozenset({"EPS", "IPTC", "MPEG"})
_COMMON = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that are recognized in files without a known suffix."""
# Pillow opens these as JPEG, because their first image is one.
_OPENED_AS_JPEG = frozenset({"MPO"})

_HEIF_REPAIR = (
    "Install HEIC support with `pip install 'hf-finetune[heif]'`, or convert these files to JPEG or PNG."
)
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
_VIDEO_REPAIR = "Extract frames as images, for example with `ffmpeg -i FILE -r 1 frame-%04d.png`."
_REPAIRS: dict[tuple[str, ...], str] = {
    HEIF: _HEIF_REPAIR,
    (
        ".avif",
        ".avifs",
    ): "Install a Pillow that reads AVIF (11.3 or later), or convert these files to JPEG or PNG.",
    (".jxl",): "Convert these files to PNG, for example with `djxl FILE.jxl FILE.png`.",
    (
        ".svg",
        ".svgz",
    ): "Render these files as PNG, for example with `rsvg-convert -w 512 FILE.svg -o FILE.png`.",
    (".eps", ".ps", ".ai", ".pdf"): (
        "Render these files as PNG, for example with `pdftoppm -png FILE` or Ghostscript."
    ),
    (".emf", ".wmf"): "Render these files as PNG, for example with `inkscape FILE --export-type=png`.",
    (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"): (
        "Develop these raw files to JPEG or TIFF, for example with `darktable-cli FILE FILE.jpg`."
    ),
    (".dcm", ".dicom"): "Convert these files to PNG or TIFF, for example with pydicom and Pillow.",
    (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"): "Save slices of these volumes as PNG or TIFF.",
    (".czi", ".lif", ".mrxs", ".ndpi", ".nd2", ".svs"): (
        "Cut these microscope slides into tiles and save them as PNG, for example with OpenSlide."
    ),
    (".exr", ".hdr"): "Convert these files to PNG or TIFF, tone-mapped to 8 bits.",
    (".npy", ".npz", ".mat"): "Save these arrays as PNG or TIFF, for example with Pillow's Image.fromarray.",
    (".h5", ".hdf", ".hdf5", ".grib", ".bufr"): "Save the arrays in these files as PNG or TIFF.",
    (".xcf", ".kra", ".clip"): "Export these files as PNG from the program that wrote them.",
    _VIDEOS: _VIDEO_REPAIR,
}
# Signatures of formats: an offset in the file, the bytes at that offset, and a suffix of the format.
_SIGNATURES = (
    *(
        (4, b"ftyp" + brand, ".heic")
        for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
    ),
    *((4, b"ftyp" + brand, ".avif") for brand in (b"avif", b"avis")),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (0, b"\x00\x00\x00\x0cJXL ", ".jxl"),
    (0, b"\xff\x0a", ".jxl"),
    (0, b"%PDF", ".pdf"),
    (0, b"%!PS", ".eps"),
    (0, b"\xc5\xd0\xd3\xc6", ".eps"),
    (0, b"<svg", ".svg"),
    (128, b"DICM", ".dcm"),
    (0, b"v/1\x01", ".exr"),
    (0, b"\x93NUMPY", ".npy"),
    (0, b"\x89HDF", ".h5"),
    (0, b"gimp xcf", ".xcf"),
)


def _readable_formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes without external programs.

    Stub plug-ins are excluded: they only recognize the header of a format.
    """
    Image.init()
    return tuple(
        name
        for name, (factory, _) in Image.OPEN.items()
        if name not in _NOT_IMAGES
        and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    )


if find_spec("pillow_heif") is not None:
    import pillow_heif

    pillow_heif.register_heif_opener()

IMAGE_FORMATS = _readable_formats()
"""Pillow's names of the supported formats. Files are recognized by content, whatever their suffix."""

IMAGE_SUFFIXES = frozenset(
    suffix
    for suffix, name in Image.registered_extensions().items()
    if name in IMAGE_FORMATS or name in _OPENED_AS_JPEG
)
"""Suffixes of image files, in lower case, with their dot."""


def conversion_of(name: str) -> str | None:
    """Return advice on converting a file to a supported format, by its suffix; None if unknown or not needed."""
    name = name.lower()
    if Path(name).suffix in IMAGE_SUFFIXES:
        return None
    return next((repair for suffixes, repair in _REPAIRS.items() if name.endswith(suffixes)), None)


def has_unsupported_image_format(name: str) -> bool:
    """Return whether a file is an image, and not a video, that must be converted first, by its suffix."""
    return conversion_of(name) not in (None, _VIDEO_REPAIR)


def sniffed_conversion(head: bytes) -> tuple[str, str] | None:
    """Recognize an unsupported format by its signature.

    Args:
        head: First 200 bytes of the file.

    Returns:
        The usual suffix of the format without the dot, and a sentence on how to convert it; None if the format is
        unknown.
    """
    for offset, signature, suffix in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            repair = next(repair for suffixes, repair in _REPAIRS.items() if suffix in suffixes)
            return suffix.removeprefix("."), repair
    if b"<svg" in head:
        return sniffed_conversion(b"<svg")
    return None


def _sniffed_format(file: Path) -> str | None:
    """Return the image format of a file by its content, if it is one of the common formats; else None."""
    try:
        with Image.open(file, formats=_COMMON) as image:
            return image.format
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def unreadable_problems(place: str, files: Iterable[Path]) -> list[Problem]:
    """Return a problem for each kind of image in a folder that cannot be read and would be skipped.

    Camera raw files next to a JPEG of the same name are not a problem, and neither are videos next to images.

    Args:
        place: Name of the folder in the messages.
        files: All files of one class folder.
    """
    all_files = list(files)
    image_stems = {file.stem for file in all_files if file.suffix.lower() in IMAGE_SUFFIXES}
    by_repair: dict[str, list[str]] = {}
    without_suffix: dict[str, str] = {}
    for file in all_files:
        repair = conversion_of(file.name)
        if (
            repair is not None
            and file.stem not in image_stems
            and not (image_stems and repair == _VIDEO_REPAIR)
        ):
            by_repair.setdefault(repair, []).append(file.name)
        elif repair is None and not image_stems and (image_format := _sniffed_format(file)) is not None:
            without_suffix.setdefault(file.name, image_format.lower())
    if without_suffix:
        name, image_format = next(iter(without_suffix.items()))
        repair = f"Add the suffix of the format to the file names, for example '{name}.{image_format}'."
        by_repair[repair] = list(without_suffix)
    rule = "must contain images in supported formats"
    return [Problem(place, rule, join_quoted(names), repair) for repair, names in by_repair.items()]
