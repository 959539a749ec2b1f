"""The manifest: written, changed and read back."""

import json

import pytest

from hf_finetune.errors import InputError
from hf_finetune.training.manifest import (
    Manifest,
    StageRecord,
    determinism,
    library_versions,
    read_manifest,
    write_json,
)

MANIFEST = Manifest(
    stages=(StageRecord("head", "done", 1.5, {"steps": 3}), StageRecord("all")),
    fingerprints={"recipe": "a", "data": "b", "checkpoint": "c"},
    versions={"torch": "2.15.0"},
    seed=7,
    determinism={"bit_for_bit": True},
)
HERE = {"device": "cpu", "processor": "AVX512", "threads": 2}


def test_a_manifest_survives_saving_and_loading(tmp_path):
    MANIFEST.write(tmp_path / "manifest.json")
    assert read_manifest(tmp_path / "manifest.json") == MANIFEST


def test_changing_a_stage_makes_another_manifest():
    changed = MANIFEST.with_stage(1, state="running", seconds=0.5)
    assert changed.stages == (MANIFEST.stages[0], StageRecord("all", "running", 0.5))
    assert MANIFEST.stages[1].state == "pending"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "no such file. Start the run without --resume."),
        ("{", "a damaged file."),
        ("{}", "a damaged file."),
        ('{"stages": [{"nom": "head"}]}', "a damaged file."),
        ('{"stages": [], "seed": 0}', "a damaged file."),
        ("[]", "a damaged file."),
    ],
)
def test_an_invalid_manifest_is_an_error(tmp_path, text, found):
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path} must be the manifest of a run. Got {found}"


def test_json_is_written_atomically(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"accuracy": 0.5, "name": "crème"})
    before = path.read_text(encoding="utf-8")
    assert json.loads(before) == {"accuracy": 0.5, "name": "crème"}
    assert "crème" in before
    for content in ({"accuracy": float("nan")}, {"accuracy": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, content)
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_the_versions_a_result_depends_on_are_listed():
    versions = library_versions()
    assert set(versions) == {
        "hf-finetune",
        "torch",
        "transformers",
        "datasets",
        "accelerate",
        "timm",
        "peft",
        "scikit-learn",
    }
    assert all(versions.values())


def test_one_process_in_fp32_on_a_cpu_is_reproducible_on_its_like():
    assert determinism(**HERE) == {
        "bit_for_bit": True,
        "provided": {"versions": "as listed", "processes": 1, "processor": "AVX512", "threads": 2},
        "obstacles": [],
    }


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"device": "cuda"}, "cuda kernels may sum numbers in a different order each time"),
        (
            {"precision": "bf16"},
            "with bf16 autocast the library chooses the kernels, and so the rounding",
        ),
        (
            {"precision": "fp16"},
            "with fp16 autocast the library chooses the kernels, and so the rounding",
        ),
        ({"compiled": True}, "torch.compile may choose different kernels each time, by a benchmark"),
        ({"processes": 3}, "3 processes may sum their gradients in a different order each time"),
    ],
)
def test_causes_of_unequal_bits_are_reported(changes, obstacle):
    told = determinism(**{**HERE, **changes})
    assert told["bit_for_bit"] is False
    assert told["obstacles"] == [obstacle]


def test_all_obstacles_are_reported_together():
    told = determinism(
        device="cuda", processor="AVX2", threads=8, precision="bf16", compiled=True, processes=2
    )
    assert len(told["obstacles"]) == 4
    assert told["provided"] == {"versions": "as listed", "processes": 2}


def test_a_manifest_from_before_the_entry_is_read(tmp_path):
    path = tmp_path / "manifest.json"
    MANIFEST.write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["determinism"]
    write_json(path, content)
    assert read_manifest(path).determinism == {}
