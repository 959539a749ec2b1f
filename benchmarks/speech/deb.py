"""Debian packages as archives: fetched by apt-get, pinned by SHA-256, and read by the standard library."""

import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from benchmarks.inputs import ROOT

sys.path.append(str(ROOT / "tools"))

from archives import Archive, AssetError, sha256

__all__ = ["Archive", "AssetError", "fetch_deb", "read_deb"]

MAGIC = b"!<arch>\n"
HEADER = 60
"""Length of the header of a member (bytes); it ends with ``END``."""
END = b"`\n"


def fetch_deb(archive: Archive, folder: Path) -> Path:
    """Return the path of a Debian package in the folder; download it unless it exists there undamaged.

    Args:
        archive: Package to download, with the name of its file and the SHA-256.
        folder: Where packages are kept. Made if missing. The package appears in it whole or not at all.

    Returns:
        The file. Nothing in it has been executed or unpacked.

    Raises:
        AssetError: If apt-get does not exist or fails, or the download is not the requested package.
    """
    place = folder / archive.file
    if place.is_file() and sha256(place) == archive.sha256:
        return place
    print(f"fetching {archive.name} {archive.version} with apt-get", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as scratch:
        _download(archive, Path(scratch), folder)
        downloads = list(Path(scratch).glob("*.deb"))
        digests = [sha256(path) for path in downloads]
        if digests != [archive.sha256]:
            shown = ", ".join(digests) or "no file"
            raise AssetError(f"{archive.file} must have the SHA-256 {archive.sha256}. Got {shown}.")
        downloads[0].replace(place)
    return place


def _download(archive: Archive, scratch: Path, folder: Path) -> None:
    command = ["apt-get", "download", "-qq", f"{archive.name}={archive.version}"]
    try:
        subprocess.run(
            command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join((getattr(error, "stderr", "") or str(error)).split())
        raise AssetError(
            f"The Debian package {archive.name} {archive.version} could not be downloaded ({reason}): run apt-get "
            f"update on Debian 12 and try again, or put {archive.file} in {folder} by hand."
        ) from error


def read_deb(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield the regular files of a Debian package whose names match a pattern. Nothing is written or executed.

    Args:
        path: The package.
        wanted: Pattern of whole names without the leading ``./``: ``usr/share/doc/fillets-ng-data/copyright``.

    Yields:
        Match of the name, and content of the file.

    Raises:
        AssetError: If the file is not a Debian package, or damaged.
    """
    try:
        with tarfile.open(fileobj=BytesIO(_data_member(path)), mode="r:*") as tar:
            for member in tar:
                match = wanted.fullmatch(member.name.removeprefix("./"))
                file = tar.extractfile(member) if match and member.isfile() else None
                if match and file:
                    yield match, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise AssetError(f"{path} must be a Debian package that can be read. Got: {error}.") from error


def _data_member(path: Path) -> bytes:
    """Return the member with the files of a package: data.tar, compressed."""
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise AssetError(
            f"{path} must be a Debian package, which begins with {MAGIC!r}. Got {content[:8]!r}."
        )
    position = len(MAGIC)
    while position + HEADER <= len(content):
        header = content[position : position + HEADER]
        name, size = header[:16].decode("latin-1").strip().rstrip("/"), header[48:58].strip()
        if not header.endswith(END) or not size.isdigit():
            raise AssetError(f"{path} must have a valid header at byte {position}. Got {header!r}.")
        start = position + HEADER
        if name.startswith("data.tar"):
            return content[start : start + int(size)]
        position = start + int(size) + int(size) % 2  # members begin at even positions
    raise AssetError(f"{path} must contain data.tar, the files of the package.")
