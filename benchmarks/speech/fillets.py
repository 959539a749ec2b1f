"""Dutch and Czech speech with exact transcripts: the dialogues of the game Fish Fillets NG, from packages of Debian.

``python -m benchmarks.speech.fillets [nl|cs]`` makes the folder of a language and prints a summary of it.
"""

import argparse
import csv
import random
import re
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import soundfile

from benchmarks.inputs import ROOT
from benchmarks.speech.deb import Archive, AssetError, fetch_deb, read_deb

__all__ = [
    "LANGUAGES",
    "Dialog",
    "Utterance",
    "divide",
    "join",
    "make",
    "read_dialogs",
    "read_utterances",
    "summary",
]

FOLDER = ROOT / "assets" / "small"
VERSION = "1.0.1-1.1"
SCRIPTS = Archive(
    "fillets-ng-data",
    VERSION,
    f"fillets-ng-data_{VERSION}_all.deb",
    "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84",
)
LANGUAGES: Mapping[str, Archive] = {
    "nl": Archive(
        "fillets-ng-data-nl",
        VERSION,
        f"fillets-ng-data-nl_{VERSION}_all.deb",
        "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10",
    ),
    "cs": Archive(
        "fillets-ng-data-cs",
        VERSION,
        f"fillets-ng-data-cs_{VERSION}_all.deb",
        "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14",
    ),
}
"""Package with the recordings of each language."""
GAME = "usr/share/games/fillets-ng"
SHARED = {
    "black_": "blackjokes",
    "bore_": "borejokes",
    "border_": "border",
    "intro_": "intro",
    "shout_": "border",
}
"""Folder below ``sound/share`` of each script in ``script/share``, by the first part of the script's name."""
SPEAKERS = {"font_small": "small fish", "font_big": "big fish"}
"""Speaker of each font of the subtitles; other fonts are those of other roles."""
LONGEST = 30.0
"""Maximum length of a recording (seconds), which is that of Whisper's input."""
TEST, VALIDATION = 200, 150
"""Minimum number of utterances of the test split, and of the validation split."""
PLAUSIBLE = 1.0, 30.0
"""Range of characters per second that is plausible for speech with silence around it."""

_STATEMENT = re.compile(
    r'dialog(?:Id\(\s*"(?P<id>[^"]+)"\s*,\s*"(?P<font>\w*)"|Str\(\s*"(?P<text>(?:[^"\\]|\\.)*)"\s*\))'
)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_README = """\
# Fish Fillets NG, speech

Recordings of the Debian package {recordings.name} {version} and sentences of {scripts.name} {version}, under the GNU
General Public License, version 2 (see copyright).

- {recordings.file}, SHA-256 {recordings.sha256}
- {scripts.file}, SHA-256 {scripts.sha256}

The recordings are unchanged. The sentences were written to utterances.csv.
"""

Key = tuple[str, str]
"""Level and name of a dialog."""


@dataclass(frozen=True)
class Dialog:
    """Subtitle of the game.

    Attributes:
        sentence: Text; empty if it was not translated.
        speaker: ``small fish``, ``big fish`` or ``other``.
    """

    sentence: str
    speaker: str


@dataclass(frozen=True)
class Utterance:
    """Recording and its transcript.

    Attributes:
        audio: Path of the recording, relative to the folder of the table.
        sentence: Words that are spoken.
        level: Level of the game, whose utterances are about the same things.
        speaker: ``small fish``, ``big fish`` or ``other``.
        seconds: Length.
    """

    audio: str
    sentence: str
    level: str
    speaker: str
    seconds: float


def make(language: str = "nl", folder: Path = FOLDER) -> Path:
    """Return a folder with the recordings of a language and ``utterances.csv``, which is built if it does not exist.

    The numbers of recordings and sentences that are left out are printed.

    Args:
        language: Key of ``LANGUAGES``.
        folder: Folder of the datasets and the packages.

    Returns:
        Folder with ``recordings/LEVEL/NAME.ogg``, and the table with a column for each attribute of ``Utterance``.

    Raises:
        AssetError: If a package cannot be downloaded.
    """
    place = folder / f"fillets-{language}"
    if place.is_dir():
        return place
    packages = [fetch_deb(archive, folder / "packages") for archive in (SCRIPTS, LANGUAGES[language])]
    scripts = re.compile(rf"{GAME}/script/(\w+)/(\w*)dialogs_{language}\.lua")
    sounds = re.compile(rf"{GAME}/sound/(?:share/)?(\w+)/{language}/([A-Za-z0-9_-]+)\.ogg")
    dialogs: dict[Key, Dialog] = {}
    for match, content in read_deb(packages[0], scripts):
        level = SHARED[match[2]] if match[1] == "share" else match[1]
        read = read_dialogs(content.decode("utf-8"))
        dialogs |= {(level, name): dialog for name, dialog in read.items()}
    recordings = {(match[1], match[2]): content for match, content in read_deb(packages[1], sounds)}
    utterances, left_out = join(dialogs, recordings)
    for reason, count in sorted(left_out.items()):
        print(f"left out: {count} {reason}", flush=True)
    made = folder / f".{place.name}.part"
    shutil.rmtree(made, ignore_errors=True)
    for key, utterance in utterances.items():
        (made / utterance.audio).parent.mkdir(parents=True, exist_ok=True)
        (made / utterance.audio).write_bytes(recordings[key])
    _write_table(made / "utterances.csv", list(utterances.values()))
    _write_origin(made, LANGUAGES[language], packages[1])
    made.rename(place)
    return place


def read_dialogs(script: str) -> dict[str, Dialog]:
    """Return the dialogs of a script by name, their sentences without escapes and repeated spaces.

    Args:
        script: Lua calls: ``dialogId(NAME, FONT, ENGLISH)``, and after it ``dialogStr(SENTENCE)`` if it is translated.

    Returns:
        Dialogs; the sentence of one without a translation is empty.
    """
    dialogs: dict[str, Dialog] = {}
    name = ""
    for statement in _STATEMENT.finditer(_COMMENT.sub("", script)):
        if statement["id"]:
            name = statement["id"]
            dialogs[name] = Dialog("", SPEAKERS.get(statement["font"], "other"))
        elif name:
            text = re.sub(r"\\(.)", lambda escape: " " if escape[1] in "nt" else escape[1], statement["text"])
            dialogs[name] = Dialog(" ".join(text.split()), dialogs[name].speaker)
    return dialogs


def join(
    dialogs: Mapping[Key, Dialog], recordings: Mapping[Key, bytes]
) -> tuple[dict[Key, Utterance], Counter[str]]:
    """Return the usable utterances, and the number of dialogs and recordings left out for each reason.

    Args:
        dialogs: Dialogs by level and name.
        recordings: Contents of the files by level and name.

    Returns:
        Utterances by level and name, sorted, and the counts.
    """
    utterances: dict[Key, Utterance] = {}
    left_out = Counter({"sentences without a recording": len(dialogs.keys() - recordings.keys())})
    contents = set()
    for key, content in sorted(recordings.items()):
        dialog = dialogs.get(key, Dialog("", ""))
        info = soundfile.info(BytesIO(content))
        digest = sha256(content).digest()
        if reason := _fault(dialog.sentence, info.duration) or ("copies" if digest in contents else ""):
            left_out[f"recordings: {reason}"] += 1
            continue
        contents.add(digest)
        level, name = key
        seconds = round(info.duration, 3)
        utterances[key] = Utterance(
            f"recordings/{level}/{name}.ogg", dialog.sentence, level, dialog.speaker, seconds
        )
    return utterances, +left_out


def _fault(sentence: str, seconds: float) -> str:
    """Return the reason for which a recording cannot be used; empty if there is none."""
    if not sentence:
        return "without a sentence"
    if "%" in sentence:
        return "sentence with a placeholder"
    if any(char.isalpha() and not unicodedata.name(char, "").startswith("LATIN") for char in sentence):
        return "sentence in another alphabet"
    if seconds == 0:
        return "without samples"
    return f"longer than {LONGEST:g} s" if seconds > LONGEST else ""


def _write_table(path: Path, utterances: Sequence[Utterance]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, list(Utterance.__dataclass_fields__))
        rows.writeheader()
        rows.writerows(map(asdict, utterances))


def _write_origin(folder: Path, archive: Archive, package: Path) -> None:
    notice = re.compile(rf"usr/share/doc/{archive.name}/copyright")
    for _, content in read_deb(package, notice):
        (folder / "copyright").write_bytes(content)
    readme = _README.format(recordings=archive, scripts=SCRIPTS, version=VERSION)
    (folder / "README.md").write_text(readme, encoding="utf-8")


def read_utterances(table: Path) -> list[Utterance]:
    """Return the rows of a table of utterances.

    Args:
        table: ``utterances.csv``, or the table of a split.
    """
    with table.open(encoding="utf-8", newline="") as file:
        return [
            Utterance(row["audio"], row["sentence"], row["level"], row["speaker"], float(row["seconds"]))
            for row in csv.DictReader(file)
        ]


def divide(place: Path, seed: int, test: int = TEST, validation: int = VALIDATION) -> Path:
    """Return a folder with ``train.csv``, ``validation.csv`` and ``test.csv``, each with whole levels of the game.

    Args:
        place: Folder of a language, from ``make``.
        seed: Seed of the order in which levels are held out, first for the test split.
        test: Minimum number of utterances of the test split.
        validation: Minimum number of utterances of the validation split.

    Returns:
        Folder below ``place``. The paths in its tables are relative to it.

    Raises:
        ValueError: If there are too few utterances for all three splits.
    """
    levels: dict[str, list[Utterance]] = {}
    for utterance in read_utterances(place / "utterances.csv"):
        levels.setdefault(utterance.level, []).append(utterance)
    names = sorted(levels)
    random.Random(seed).shuffle(names)
    remaining = iter(names)
    splits = {
        "test": list(_take(levels, remaining, test)),
        "validation": list(_take(levels, remaining, validation)),
        "train": [utterance for name in remaining for utterance in levels[name]],
    }
    if len(splits["test"]) < test or len(splits["validation"]) < validation or not splits["train"]:
        count = sum(map(len, levels.values()))
        raise ValueError(f"{test} test and {validation} validation utterances must leave some. Got {count}.")
    folder = place / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    for split, utterances in splits.items():
        moved = [replace(item, audio=f"../{item.audio}") for item in utterances]
        _write_table(folder / f"{split}.csv", moved)
    return folder


def _take(
    levels: Mapping[str, list[Utterance]], remaining: Iterator[str], minimum: int
) -> Iterator[Utterance]:
    """Yield the utterances of whole levels, until there are enough or no level is left."""
    taken = 0
    while taken < minimum and (name := next(remaining, None)) is not None:
        taken += len(levels[name])
        yield from levels[name]


def summary(utterances: Sequence[Utterance]) -> list[str]:
    """Return lines on the size of a table, its speakers, the rate of speech and repeated sentences.

    Args:
        utterances: Rows of the table, at least one.
    """
    rates = sorted(len(item.sentence) / item.seconds for item in utterances)
    lowest, highest = PLAUSIBLE
    outside = sum(not lowest <= rate <= highest for rate in rates)
    sentences = Counter(re.sub(r"\W+", " ", item.sentence.lower()).strip() for item in utterances)
    speakers = Counter(item.speaker for item in utterances)
    return [
        f"{len(utterances)} utterances, {sum(item.seconds for item in utterances):.0f} s, "
        f"{len({item.level for item in utterances})} levels",
        f"longest recording: {max(item.seconds for item in utterances):.1f} s",
        f"speakers: {', '.join(f'{name} {count}' for name, count in sorted(speakers.items()))}",
        f"characters per second: {rates[0]:.1f} to {rates[-1]:.1f}, median {rates[len(rates) // 2]:.1f}, "
        f"{outside} outside {lowest:g} to {highest:g}",
        f"utterances with the sentence of an earlier one: {len(utterances) - len(sentences)}",
    ]


def main(language: str) -> None:
    """Make the folder of a language, and print a summary of it and of the splits of seed 0, and 10 random rows."""
    place = make(language)
    utterances = read_utterances(place / "utterances.csv")
    print(place, *summary(utterances), sep="\n")
    for item in random.Random(0).sample(utterances, 10):
        print(f"{item.audio} ({item.speaker}, {item.seconds:.1f} s): {item.sentence}")
    folder = divide(place, 0)
    for split in ("train", "validation", "test"):
        print(split, *summary(read_utterances(folder / f"{split}.csv")), sep="\n  ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the folder of a language and print a summary of it.")
    parser.add_argument("language", nargs="?", choices=list(LANGUAGES), default="nl")
    try:
        main(parser.parse_args().language)
    except AssetError as error:
        sys.exit(f"fillets: {error}")
