"""Checkpoints: which are complete, which is used to resume, and which are kept."""

import json

import pytest

from hf_finetune.training.checkpoints import (
    SEAL,
    checkpoint_step,
    is_intact,
    last_checkpoint,
    remove_old_checkpoints,
    seal_checkpoint,
)

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def checkpoint(folder, step, best=None, sealed=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in FILES[:-1]:
        (path / name).write_bytes(f"{name} of step {step}".encode())
    state = {"global_step": step, "best_global_step": best}
    (path / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    if sealed:
        seal_checkpoint(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path):
    for step in (9, 10, 100, 20):
        checkpoint(tmp_path, step)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert checkpoint_step(tmp_path / "checkpoint-100") == 100


def test_without_checkpoints_there_is_none(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "not-there") is None
    checkpoint(tmp_path, 3, sealed=False)
    assert last_checkpoint(tmp_path) is None


def newest(original, folder):
    """The checkpoint with the highest number."""
    return max(folder.glob("checkpoint-*"), default=None, key=lambda path: int(path.name.split("-")[1]))


@pytest.mark.defends(
    "hf_finetune.training.checkpoints:last_checkpoint", why="An incomplete checkpoint is skipped", by=newest
)
def test_a_checkpoint_without_its_seal_is_skipped_and_removed(tmp_path):
    whole, half = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20, sealed=False)
    assert last_checkpoint(tmp_path) == whole
    assert not half.exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "changed"])
@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_one_bad_file_is_skipped_and_removed(tmp_path, name, damage):
    whole, bad = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20)
    file = bad / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        file.write_bytes({"empty": b"", "cut off": content[:-1], "changed": flipped}[damage])
    assert is_intact(whole) and not is_intact(bad)
    assert last_checkpoint(tmp_path) == whole
    assert names(tmp_path) == ["checkpoint-10"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3}', '{"files": {"optimizer.pt": 1}}'])
def test_a_checkpoint_with_a_damaged_seal_is_incomplete(tmp_path, text):
    path = checkpoint(tmp_path, 10)
    (path / SEAL).write_text(text, encoding="utf-8")
    assert not is_intact(path)


def test_the_parts_that_several_processes_write_are_sealed_too(tmp_path):
    path = checkpoint(tmp_path, 10, sealed=False)
    part = path / "optimizer_0" / "__1_0.distcp"
    part.parent.mkdir()
    part.write_bytes(b"shard")
    seal_checkpoint(path)
    assert is_intact(path)
    part.write_bytes(b"shar")
    assert not is_intact(path)


def test_a_checkpoint_whose_best_one_is_damaged_is_skipped(tmp_path):
    """The Trainer would warn, and take the last weights for the best."""
    first, best, newest = (checkpoint(tmp_path, step, min(step, 8)) for step in (4, 8, 12))
    assert last_checkpoint(tmp_path) == newest
    (best / "model.safetensors").write_bytes(b"")
    assert last_checkpoint(tmp_path) == first
    assert not newest.exists()


@pytest.mark.parametrize(
    ("best", "kept"),
    [(None, [20, 30]), (30, [20, 30]), (20, [20, 30]), (10, [10, 30]), (7, [20, 30])],
)
def test_the_newest_and_the_best_checkpoint_stay(tmp_path, best, kept):
    for step in (9, 10, 20, 30):
        checkpoint(tmp_path, step, sealed=False)
    remove_old_checkpoints(tmp_path, best)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in kept]
    remove_old_checkpoints(tmp_path, best)
    assert len(names(tmp_path)) == 2


def test_a_lone_checkpoint_stays(tmp_path):
    checkpoint(tmp_path, 9)
    remove_old_checkpoints(tmp_path, 9)
    assert names(tmp_path) == ["checkpoint-9"]
