"""Sounds of drums, labelled by the kind of drum, from the drum kits of the Debian package hydrogen-drumkits."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.inputs import ROOT
from benchmarks.small.sets import unpacked

__all__ = ["make", "read_kits"]

FOLDER = ROOT / "assets" / "small"
PACKAGE = "hydrogen-drumkits", "2017.09.19~dfsg-1", "usr/share/hydrogen/data/drumkits"
KINDS = {
    "kick": re.compile(r"kick|bass ?drum"),
    "snare": re.compile(r"snare"),
    "tom": re.compile(r"\btom|floor"),
    "closed hi-hat": re.compile(r"(hat|hh).*(closed|\bcl\b)|(closed|\bcl\b).*(hat|hh)"),
    "open hi-hat": re.compile(r"(hat|hh).*(open|\bop\b)|(open|\bop\b).*(hat|hh)"),
    "cymbal": re.compile(r"crash|ride|splash|china|cymbal"),
}
"""Pattern of the lower-case names of the instruments of each kind."""
OTHER = re.compile(r"semi|half|rim|roll")
"""Pattern of names that are not clearly of a kind."""


def read_kits(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield file, kind and kit of each sound of a known kind.

    Args:
        folder: Folder with one folder per kit, each with a ``drumkit.xml``.
    """
    for description in sorted(folder.glob("*/drumkit.xml")):
        text = re.sub(r'\sxmlns="[^"]+"', "", description.read_text(encoding="utf-8", errors="replace"))
        seen = set()
        for instrument in ElementTree.fromstring(text.encode()).iter("instrument"):
            kind = _kind(instrument.findtext("name") or "")
            for element in instrument.iter("filename"):
                file = description.parent / (element.text or "")
                if kind and file.is_file() and file not in seen:
                    seen.add(file)
                    yield file, kind, description.parent.name


def _kind(name: str) -> str:
    """Return the kind of an instrument by its name; empty if it is none of them, or several."""
    lower = name.lower()
    found = [kind for kind, pattern in KINDS.items() if pattern.search(lower)]
    return found[0] if len(found) == 1 and not OTHER.search(lower) else ""


def make(folder: Path = FOLDER) -> Path:
    """Return a table of the sounds with the columns ``audio``, ``label`` and ``kit``.

    Args:
        folder: Folder of the packages and of the table.

    Raises:
        AssetError: If the package cannot be downloaded.
    """
    place = folder / "drums.csv"
    rows = [(str(file), kind, kit) for file, kind, kit in read_kits(unpacked(PACKAGE, folder))]
    with place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("audio", "label", "kit"), *rows])
    return place
