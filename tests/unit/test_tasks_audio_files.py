"""Recordings: read from any supported file, and refused with a reason that names the fault."""

import io
import struct

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from hf_finetune.errors import InputError
from hf_finetune.tasks.audio import files
from hf_finetune.tasks.audio.feature import Recording, wave_bytes
from hf_finetune.tasks.audio.files import RecordingError, read_header, read_recording
from hf_finetune.tasks.audio.formats import has_unsupported_audio_format, unreadable_problems
from hf_finetune.tasks.audio.stored import AudioCheck, durations

RATE = 16_000
TONE = np.sin(np.arange(RATE) / 10).astype(np.float32) / 2


def encoded(samples=TONE, rate=RATE, **options):
    written = io.BytesIO()
    soundfile.write(written, samples, rate, **{"format": "WAV", **options})
    return written.getvalue()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"format": "WAV", "subtype": "PCM_16"}, 1e-4),
        ({"format": "WAV", "subtype": "PCM_24"}, 1e-6),
        ({"format": "WAV", "subtype": "FLOAT"}, 0),
        ({"format": "FLAC"}, 1e-4),
        ({"format": "OGG", "subtype": "VORBIS"}, 0.05),
        ({"format": "MP3"}, 0.05),
    ],
)
def test_all_formats_are_read(options, error):
    recording, facts = read_recording(encoded(**options))
    assert recording["sampling_rate"] == facts.rate == RATE
    assert recording["array"].dtype == np.float32 and recording["array"].shape == (RATE,)
    assert np.abs(recording["array"] - TONE)[500:-500].max() <= error
    assert (facts.channels, facts.seconds, facts.is_silent) == (1, 1.0, False)


def test_channels_are_averaged():
    recording, facts = read_recording(encoded(np.stack([TONE, -TONE / 2], axis=1), subtype="FLOAT"))
    assert facts.channels == 2
    assert recording["array"] == pytest.approx(TONE / 4, abs=1e-6)


NAN = TONE.copy()
NAN[7] = np.nan


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"no sound at all" * 20, "no readable recording"),
        (encoded()[:3000], "a truncated file: 2,956 of 32,000 bytes of samples"),
        (encoded(format="FLAC")[:3000], "no readable recording"),
        (encoded(format="OGG", subtype="VORBIS")[:2500], "no readable recording"),
        (encoded(format="AIFF")[:3000], "a truncated file"),
        (encoded(TONE[:0]), "a recording without samples"),
        (encoded(NAN, subtype="FLOAT"), "a recording with samples that are NaN or infinite"),
        (encoded(rate=50), "a recording with a sampling rate of 50 Hz, below 1,000 Hz"),
        (b"\0\0\0\x20ftypM4A " + bytes(200), "a file in the unsupported format MPEG-4"),
    ],
    ids=["empty", "text", "wav", "flac", "ogg", "aiff", "no-samples", "nan", "rate", "m4a"],
)
def test_faults_are_named(content, reason):
    with pytest.raises(RecordingError) as error:
        read_recording(content)
    assert str(error.value).startswith(reason)


def test_a_recording_of_unknown_length_is_complete():
    """A program that writes to a pipe cannot fill in the length."""
    content = bytearray(encoded(subtype="PCM_16"))
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 0xFFFF_FFFF)
    recording, _ = read_recording(bytes(content))
    assert len(recording["array"]) == RATE


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(InputError, match=r"soundfile.*pip install 'hf-finetune\[audio\]'"):
        read_recording(encoded())


def test_the_header_is_read_without_the_samples(monkeypatch):
    monkeypatch.setattr(files, "_check_complete", None)
    assert read_header(encoded()).seconds == 1.0


def test_a_column_takes_paths_bytes_and_arrays(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(subtype="FLOAT"))
    column = Recording()
    stored = [
        column.encode_example(str(path)),
        column.encode_example(path),
        column.encode_example(path.read_bytes()),
        column.encode_example({"array": TONE, "sampling_rate": RATE}),
        column.encode_example({"bytes": path.read_bytes(), "path": "elsewhere.wav"}),
    ]
    for each in stored:
        assert column.decode_example(each)["array"] == pytest.approx(TONE, abs=1e-4)


def test_a_dataset_decodes_its_recordings(tmp_path):
    from datasets import Features, Value

    (tmp_path / "a.wav").write_bytes(encoded())
    features = Features({"audio": Recording(), "label": Value("int64")})
    dataset = Dataset.from_dict({"audio": [str(tmp_path / "a.wav")], "label": [1]}, features=features)
    assert dataset[0]["audio"]["sampling_rate"] == RATE
    assert durations(dataset) == {0: 1.0}


def test_the_check_names_each_fault_and_notes_silence_and_rates(tmp_path):
    contents = {
        "good.wav": encoded(),
        "other.wav": encoded(rate=8000),
        "silent.wav": encoded(TONE * 0),
        "empty.wav": b"",
        "cut.wav": encoded()[:999],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = [*contents, "gone.wav"]
    rows = {"audio": [str(tmp_path / name) for name in names]}
    from datasets import Features

    dataset = Dataset.from_dict(rows, features=Features({"audio": Recording(decode=False)}))
    check = AudioCheck()
    faults = check.faults(dataset, names)
    assert faults[:3] == [None, None, None]
    assert faults[3:] == ["an empty file", "a truncated file: 955 of 32,000 bytes of samples", "no such file"]
    silent, rates = check.notes()
    assert silent == "Recordings of silence only: 'silent.wav'."
    assert rates.startswith(
        "Recordings have different sampling rates; 2 have 16,000 Hz, others 8,000 Hz: 'other.wav'."
    )


def test_unsupported_files_in_a_folder_are_a_problem(tmp_path):
    assert has_unsupported_audio_format("a.M4A") and not has_unsupported_audio_format("a.wav")
    (problem,) = unreadable_problems(
        "sounds/dog", [tmp_path / "a.m4a", tmp_path / "b.wav", tmp_path / "c.txt"]
    )
    assert "'a.m4a'" in str(problem) and "ffmpeg" in str(problem) and "b.wav" not in str(problem)
    assert unreadable_problems("sounds/dog", [tmp_path / "b.wav"]) == []


def test_samples_are_written_as_they_are():
    recording, _ = read_recording(wave_bytes(TONE, RATE))
    assert recording["array"] == pytest.approx(TONE, abs=1e-4)
