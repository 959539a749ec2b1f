"""Rows in files: read as written, in any order and any process; damage is detected, and old entries are removed."""

import os
import pickle

import pytest
import torch
from filelock import FileLock
from removals import always

from hf_finetune.cache.cache_dir import list_cache, parse_size, prune_cache
from hf_finetune.cache.store import RowFormat, RowStore, write_rows
from hf_finetune.errors import InputError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]


def rows_of(dtype, count=7):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            (torch.randn(3, 2, generator=generator) * 9).to(dtype),
            torch.randn(index % 3, 4, generator=generator),
            torch.tensor(index),
        )
        for index in range(count)
    ]


def write(folder, rows, dtype=torch.float32, about="a test"):
    name = str(dtype).removeprefix("torch.")
    formats = [
        RowFormat((3, 2), name, False),
        RowFormat((4,), "float32", True),
        RowFormat((), "int64", False),
    ]
    write_rows(folder, rows, formats, {"about": about, "examples": len(rows)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_read_as_they_were_written(tmp_path, dtype):
    rows = rows_of(dtype)
    write(tmp_path / "rows", rows, dtype)
    store = RowStore(tmp_path / "rows")
    assert len(store) == 7
    for index in (6, 0, 3, 1, 2, 5, 4):
        for found, expected in zip(store[index], rows[index], strict=True):
            assert found.dtype == expected.dtype and torch.equal(found, expected)
    again = pickle.loads(pickle.dumps(store))
    assert all(torch.equal(one, other) for one, other in zip(again[2], rows[2], strict=True))


def test_rows_can_be_read_when_they_have_been_removed(tmp_path):
    rows = rows_of(torch.float32)
    write(tmp_path / "rows", rows)
    store = RowStore(tmp_path / "rows")
    assert len(prune_cache(tmp_path, 0)) == 1
    assert not (tmp_path / "rows").exists()
    assert torch.equal(store[5][0], rows[5][0])


@pytest.mark.defends("hf_finetune.cache.store:_is_intact", by=always, ids=["changed-0.bin"])
@pytest.mark.parametrize("name", ["0.bin", "1.bin", "offsets.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_file_is_seen(tmp_path, name, damage):
    write(tmp_path / "rows", rows_of(torch.float32))
    path = tmp_path / "rows" / name
    raw = bytearray(path.read_bytes())
    if damage == "changed":
        raw[len(raw) // 2] ^= 4
    path.write_bytes(raw[:-5] if damage == "cut" else raw)
    if damage == "gone":
        path.unlink()
    with pytest.raises(ValueError, match=r"is not a complete cache entry|was modified after it was written"):
        RowStore(tmp_path / "rows")


def test_an_interrupted_file_does_not_exist(tmp_path):
    def rows():
        yield from rows_of(torch.float32, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "rows", rows(), [RowFormat((3, 2), "float32", False)] * 3, {})
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_is_removed_first(tmp_path):
    for name in ("new", "old", "middle"):
        write(tmp_path / name, rows_of(torch.float32), about=name)
        age = {"old": 3000, "middle": 2000, "new": 1000}[name]
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
        (tmp_path / f"{name}.lock").touch()
    kept = list_cache(tmp_path)
    assert [each.about for each in kept] == ["old", "middle", "new"]
    assert [each.examples for each in kept] == [7, 7, 7]
    assert prune_cache(tmp_path, sum(each.bytes for each in kept)) == []
    assert [each.about for each in prune_cache(tmp_path, 2 * kept[0].bytes - 1)] == ["old", "middle"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.lock"]


def test_the_parts_of_a_version_are_listed_and_removed_together(tmp_path):
    for name in ("one.0-7", "one.7-14", "two-00"):  # older versions wrote a number
        write(tmp_path / name, rows_of(torch.float32), about=name[:3])
    os.utime(tmp_path / "one.0-7", (1e9, 1e9))
    os.utime(tmp_path / "two-00", (1.1e9, 1.1e9))
    assert [(each.name, each.examples) for each in list_cache(tmp_path)] == [("two", 7), ("one", 14)]
    assert [each.name for each in prune_cache(tmp_path, 0, {"two"})] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["two-00"]


def test_files_of_a_killed_writer_are_removed_and_files_in_progress_are_not(tmp_path):
    for name in ("left", "busy"):
        (tmp_path / f".{name}.part").mkdir(parents=True)
    with FileLock(tmp_path / "busy.lock"):
        prune_cache(tmp_path, 0)
    assert [path.name for path in tmp_path.glob(".*.part")] == [".busy.part"]


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("500MB", 500_000_000), ("2.5 gb", 2_500_000_000), ("1kB", 1000)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "3x", "1 GiB"])
def test_invalid_sizes(text):
    with pytest.raises(InputError, match="--max-size must be a number of bytes"):
        parse_size(text)
