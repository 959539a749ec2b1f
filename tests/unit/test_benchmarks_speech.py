"""The data of the speech benchmark: Debian packages, dialogues of a game, and the division by level."""

import csv
import io
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.speech import deb, fillets
from benchmarks.speech.deb import Archive, AssetError, fetch_deb, read_deb, sha256
from benchmarks.speech.fillets import Dialog, divide, join, make, read_dialogs, read_utterances, summary

SCRIPT = r"""
-- dialogId("a-m-removed", "font_small", "Removed.")
dialogId("a-m-ship", "font_small", "What kind of \"ship\" is that?")
dialogStr("Wat is dit voor \"schip\"?")

dialogId("a-v-wreck", "font_big", "It is a wreck.")
dialogStr(
    "Een  wrak in C:\\GAMES.")
dialogId("a-x-parrot", "font_parrot", "Crrracker!")
"""


def member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def write_deb(path: Path, files: dict[str, bytes], link: str = "") -> Path:
    """Write a Debian package with these files, and a symbolic link if a name is given."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo(f"./{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry)
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())]
    path.write_bytes(deb.MAGIC + b"".join(member(*part) for part in parts))
    return path


def ogg(seconds: float, seed: int = 0) -> bytes:
    samples = np.random.default_rng(seed).normal(scale=0.1, size=round(8000 * seconds))
    content = io.BytesIO()
    soundfile.write(content, samples, 8000, format="OGG", subtype="VORBIS")
    return content.getvalue()


def described(path: Path) -> Archive:
    return Archive(path.stem, "1.0", path.name, sha256(path))


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """A folder of datasets with packages of three levels, each of two utterances, and of shared dialogues."""
    folder = tmp_path / "packages"
    folder.mkdir()
    scripts, sounds = {}, {"usr/share/doc/sounds/copyright": b"GPL-2"}
    for number, level in enumerate(("airplane", "cave", "share/borejokes", "../../evil")):
        for index, name in enumerate(("m-one", "v-two")):
            content = ogg(1.0 + number, seed=2 * number + index)
            sounds[f"{fillets.GAME}/sound/{level}/nl/{name}.ogg"] = content
        lua = "share/bore_" if level.startswith("share") else f"{level}/"
        text = f'dialogId("m-one", "font_small", "")\ndialogStr("Een {number}.")\n'
        text += f'dialogId("v-two", "font_big", "")\ndialogStr("Twee {number}.")\n'
        scripts[f"{fillets.GAME}/script/{lua}dialogs_nl.lua"] = text.encode()
    monkeypatch.setattr(fillets, "SCRIPTS", described(write_deb(folder / "scripts.deb", scripts)))
    monkeypatch.setattr(fillets, "LANGUAGES", {"nl": described(write_deb(folder / "sounds.deb", sounds))})
    return tmp_path


def test_dialogs_are_read_with_their_speakers_and_without_escapes():
    assert read_dialogs(SCRIPT) == {
        "a-m-ship": Dialog('Wat is dit voor "schip"?', "small fish"),
        "a-v-wreck": Dialog("Een wrak in C:\\GAMES.", "big fish"),
        "a-x-parrot": Dialog("", "other"),
    }


def test_recordings_and_sentences_that_do_not_belong_together_are_counted(monkeypatch):
    monkeypatch.setattr(fillets, "LONGEST", 2.0)
    sentences = {
        "good": "Goed zo, één.",
        "hours": "Het kostte %1 uur.",
        "other": "Подожди, wacht.",
        "long": "Te lang.",
        "none": "Niets.",
        "again": "Goed.",
        "text": "Alleen tekst.",
        "silent": "",
    }
    dialogs = {("cave", name): Dialog(text, "other") for name, text in sentences.items()}
    recordings = {("cave", name): ogg(1, seed) for seed, name in enumerate(sentences) if name != "text"}
    recordings |= {("cave", "long"): ogg(3), ("cave", "none"): ogg(0), ("cave", "unknown"): ogg(1, 20)}
    recordings["cave", "again"] = recordings["cave", "good"]
    utterances, left_out = join(dialogs, recordings)
    # the copy that comes first by name is kept
    assert [(key, item.sentence, item.seconds) for key, item in utterances.items()] == [
        (("cave", "again"), "Goed.", 1.0)
    ]
    assert left_out == {
        "sentences without a recording": 1,
        "recordings: without a sentence": 2,
        "recordings: sentence with a placeholder": 1,
        "recordings: sentence in another alphabet": 1,
        "recordings: longer than 2 s": 1,
        "recordings: without samples": 1,
        "recordings: copies": 1,
    }


def test_the_recordings_lie_beside_their_table(packages, capsys):
    place = make("nl", packages)
    utterances = read_utterances(place / "utterances.csv")
    assert [(item.audio, item.sentence, item.speaker, item.seconds) for item in utterances] == [
        ("recordings/airplane/m-one.ogg", "Een 0.", "small fish", 1.0),
        ("recordings/airplane/v-two.ogg", "Twee 0.", "big fish", 1.0),
        ("recordings/borejokes/m-one.ogg", "Een 2.", "small fish", 3.0),
        ("recordings/borejokes/v-two.ogg", "Twee 2.", "big fish", 3.0),
        ("recordings/cave/m-one.ogg", "Een 1.", "small fish", 2.0),
        ("recordings/cave/v-two.ogg", "Twee 1.", "big fish", 2.0),
    ]
    assert {path.name for path in place.iterdir()} == {
        "copyright",
        "README.md",
        "recordings",
        "utterances.csv",
    }
    assert all(soundfile.info(place / item.audio).duration == item.seconds for item in utterances)
    assert (place / "copyright").read_text() == "GPL-2"
    assert capsys.readouterr().out == ""  # everything was used, and nothing fetched
    assert {path.name for path in packages.iterdir()} == {"fillets-nl", "packages"}
    assert make("nl", packages) == place


def test_whole_levels_are_held_out_and_the_paths_resolve(packages):
    place = make("nl", packages)
    folder = divide(place, 0, test=1, validation=2)
    levels = {}
    for split in ("train", "validation", "test"):
        rows = read_utterances(folder / f"{split}.csv")
        assert all((folder / item.audio).is_file() for item in rows)
        (levels[split],) = {item.level for item in rows}
        assert len(rows) == 2
    assert sorted(levels.values()) == ["airplane", "borejokes", "cave"]
    before = (folder / "test.csv").read_bytes()
    assert (divide(place, 0, test=1, validation=2) / "test.csv").read_bytes() == before
    orders = {(divide(place, seed, 1, 1) / "test.csv").read_text() for seed in range(8)}
    assert len(orders) == 3


@pytest.mark.parametrize(("test", "validation"), [(3, 3), (2, 5), (7, 0)])
def test_too_few_utterances_are_an_error(packages, test, validation):
    place = make("nl", packages)
    message = f"^{test} test and {validation} validation utterances must leave some. Got 6.$"
    with pytest.raises(ValueError, match=message):
        divide(place, 0, test, validation)
    assert not (place / "seed-0").exists()


def test_the_summary_counts_implausible_rates_and_repeated_sentences(packages):
    rows = read_utterances(make("nl", packages) / "utterances.csv")
    lines = summary([*rows, replace(rows[0], sentence="Een - 0!", seconds=0.1)])
    assert lines == [
        "7 utterances, 12 s, 3 levels",
        "longest recording: 3.0 s",
        "speakers: big fish 3, small fish 4",
        "characters per second: 2.0 to 80.0, median 3.5, 1 outside 1 to 30",
        "utterances with the sentence of an earlier one: 1",
    ]


def test_only_regular_files_are_read_from_a_package(tmp_path):
    path = write_deb(tmp_path / "demo.deb", {"usr/a": b"first", "usr/b": b"odd", "etc/c": b""}, link="usr/d")
    found = [(match[1], content) for match, content in read_deb(path, re.compile(r"usr/(\w)"))]
    assert found == [("a", b"first"), ("b", b"odd")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", r"must be a Debian package, which begins with b'!<arch>\\n'. Got b'PK"),
        (deb.MAGIC + b"x" * 60, "must have a valid header at byte 8. Got b'xx"),
        (deb.MAGIC + member("debian-binary", b"2.0\n"), "must contain data.tar, the files of the package."),
        (deb.MAGIC + member("data.tar.xz", b"no"), "must be a Debian package that can be read. Got: "),
    ],
)
def test_a_damaged_package_is_an_error(tmp_path, content, message):
    path = tmp_path / "demo.deb"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=message):
        list(read_deb(path, re.compile(".*")))


def test_a_package_is_fetched_once_and_checked(tmp_path, monkeypatch):
    source = write_deb(tmp_path / "demo.deb", {"usr/a": b"first"})
    programs = tmp_path / "programs"
    programs.mkdir()
    apt = programs / "apt-get"
    apt.write_text(f'#!/bin/sh\n/bin/cp {source} demo_1.0_all.deb\necho "$@" >> {tmp_path}/calls\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    archive, folder = described(source), tmp_path / "kept"
    place = fetch_deb(archive, folder)
    assert place == fetch_deb(archive, folder) == folder / "demo.deb"
    assert (tmp_path / "calls").read_text() == "download -qq demo=1.0\n"
    place.write_bytes(b"damaged")
    assert sha256(fetch_deb(archive, folder)) == archive.sha256
    other = Archive("demo", "1.0", "other.deb", "0" * 64)
    with pytest.raises(
        AssetError, match=f"^other.deb must have the SHA-256 {'0' * 64}. Got {archive.sha256}.$"
    ):
        fetch_deb(other, folder)
    assert [path.name for path in folder.iterdir()] == ["demo.deb"]


def test_without_apt_get_the_error_names_the_file_and_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    archive = Archive("demo", "1.0", "demo_1.0_all.deb", "0" * 64)
    with pytest.raises(AssetError) as error:
        fetch_deb(archive, tmp_path / "kept")
    assert str(error.value) == (
        "The Debian package demo 1.0 could not be downloaded ([Errno 2] No such file or directory: 'apt-get'): run "
        f"apt-get update on Debian 12 and try again, or put demo_1.0_all.deb in {tmp_path / 'kept'} by hand."
    )


def test_tables_keep_commas_and_quotes_of_sentences(tmp_path):
    item = fillets.Utterance("recordings/cave/a.ogg", 'Nee, "echt" niet', "cave", "other", 1.25)
    fillets._write_table(tmp_path / "rows.csv", [item])
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["audio", "sentence", "level", "speaker", "seconds"]
    assert read_utterances(tmp_path / "rows.csv") == [item]
