"""Images decoded once: the same bits as without the cache, which is safe, and otherwise not used."""

import errno
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, load_dataset
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional
from transformers import ViTImageProcessorPil

from hf_finetune.cache import decoded_examples
from hf_finetune.cache.cache_dir import list_cache
from hf_finetune.cache.decoded_examples import decode_once, reason_not_to_cache
from hf_finetune.cache.store import RowFormat, RowStore, write_rows
from hf_finetune.data.prepare import LabeledData
from hf_finetune.recipe.data import DataSpec
from hf_finetune.tasks import MODALITIES, TASKS, Inputs
from hf_finetune.tasks.image import decoding
from hf_finetune.tasks.image.transforms import (
    ImageTransform,
    TransformedImages,
    min_edge_for_crops,
    train_transform,
)
from hf_finetune.tasks.seeded_augmentation import SeededExamples

DISHES = Path(__file__).parents[2] / "examples/data/dishes/test.parquet"
TASK = TASKS["image-classification"]
SIZE = 64
PROCESSOR = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, resample=3)
ROOM = 10**9
LARGE = (602, 400)


@pytest.fixture(scope="module")
def dishes():
    return load_dataset("parquet", data_files=str(DISHES), split="train").select_columns(["image", "label"])


def inputs_of(train, validation=None, augment="standard", target="single_label"):
    data = LabeledData(train, validation, None, target, ("a", "b", "c"), (), "made up")
    return TASK.prepare(data, PROCESSOR, DataSpec(path="x", augment=augment, image_size=SIZE), seed=3)


def once(inputs, folder, **changes):
    wanted = {
        "train_passes": 3,
        "validation_passes": 3,
        "size_limit": ROOM,
        "sources": {"train": "a", "validation": "b"},
        "always": True,
    }
    return decode_once(inputs, MODALITIES["image"], folder=folder, **{**wanted, **changes})


def assert_same(one, other, epochs=(0, 1)):
    """Compare the splits of two inputs in several epochs, bit for bit. Return all training images."""
    seen = []
    for epoch in epochs:
        for inputs in (one, other):
            inputs.train.set_epoch(epoch)
        for split in ("train", "validation"):
            ours, theirs = getattr(one, split) or [], getattr(other, split) or []
            assert len(ours) == len(theirs)
            for index in range(len(ours)):
                found, expected = ours[index], theirs[index]
                assert list(found) == list(expected) and found["labels"] == expected["labels"]
                assert found["pixel_values"].dtype == expected["pixel_values"].dtype
                assert torch.equal(found["pixel_values"], expected["pixel_values"])
        seen.append(torch.stack([one.train[index]["pixel_values"] for index in range(len(one.train))]))
    return seen


def noise(width, height, mode="RGB", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def images_of(images, labels=None, feature=None):
    labels = labels or [index % 3 for index in range(len(images))]
    features = Features({"image": ImageFeature(), "label": feature or ClassLabel(names=["a", "b", "c"])})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def turned():
    """Return a JPEG of a camera that was held upside down."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    noise(40, 30, seed=9).save(buffer, "JPEG", exif=exif)
    return {"bytes": buffer.getvalue(), "path": None}


def test_augmented_dishes_are_the_same_in_each_epoch(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(12)), dishes.select(range(20, 26)))
    kept, report = once(inputs, tmp_path)
    one, other = assert_same(kept, inputs)
    assert not torch.equal(one, other) and one.dtype == torch.uint8
    assert sorted(each.about for each in list_cache(tmp_path)) == [
        "12 decoded images",
        "6 preprocessed images",
    ]
    assert (report.used, report.reason) == (True, "")
    assert report.bytes == 12 * (128 * 128 * 3 + 16) + 6 * SIZE * SIZE * 3 * 4


def test_images_without_augmentation_are_cached_as_model_inputs(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(6)), augment="none")
    kept, report = once(inputs, tmp_path)
    one, other = assert_same(kept, inputs)
    assert torch.equal(one, other) and one.dtype == torch.float32
    assert report.bytes == 6 * SIZE * SIZE * 3 * 4 and kept.validation is None
    assert [each.about for each in list_cache(tmp_path)] == ["6 preprocessed images"]


@pytest.mark.parametrize("augment", ["strong", "none"])
def test_images_of_all_kinds_and_several_labels(tmp_path, augment):
    images = [turned(), noise(50, 40, "RGBA"), noise(33, 60, "L"), noise(20, 20, "P"), noise(9, 35, "1")]
    labels = [[0, 2], [], [1], [0, 1, 2], [2]]
    data = images_of(images, labels, List(ClassLabel(names=["a", "b", "c"])))
    inputs = inputs_of(data, data, augment, "multi_label")
    kept, _ = once(inputs, tmp_path)
    assert_same(kept, inputs)
    assert kept.train[0]["labels"] == [1.0, 0.0, 1.0]


def test_much_larger_images_are_cached_at_reduced_size(tmp_path):
    y, x = np.mgrid[: LARGE[1], : LARGE[0]]
    waves = np.stack([np.sin(x / 80), np.cos(y / 60), np.sin((x + y) / 99)], axis=-1)
    data = images_of([Image.fromarray((127 + 100 * waves).astype(np.uint8)), noise(90, 70)])
    inputs = inputs_of(data)
    kept, _ = once(inputs, tmp_path)
    assert_same(kept, inputs)
    edge = min_edge_for_crops("standard", SIZE)
    rows = [kept.train.dataset.rows[index]["image"] for index in range(2)]
    assert rows[0].size == (round(LARGE[0] * edge / LARGE[1]), edge) and rows[1].size == (90, 70)
    transform = train_transform("light", SIZE, (0.5,) * 3)
    one, other = (
        SeededExamples(TransformedImages(data, ImageTransform(transform, edge=size)), 0)
        for size in (min_edge_for_crops("light", SIZE), None)
    )
    difference = one[0]["pixel_values"].int() - other[0]["pixel_values"].int()
    assert 0 < difference.abs().float().mean() < 4


def test_data_loader_processes_get_the_same(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(5)), dishes.select(range(5, 9)))
    kept, _ = once(inputs, tmp_path)
    kept.train.set_epoch(1)
    inputs.train.set_epoch(1)
    for split in ("train", "validation"):
        options = {"batch_size": 2, "collate_fn": inputs.collate}
        loader = DataLoader(getattr(kept, split), num_workers=1, **options)
        plain = DataLoader(getattr(inputs, split), **options)
        for found, expected in zip(loader, plain, strict=True):
            assert found["pixel_values"].dtype == torch.float32
            assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert_same(pickle.loads(pickle.dumps(kept)), inputs)


def test_existing_cache_entries_are_used_even_for_one_pass(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(5)), dishes.select(range(5, 9)))
    _, first = once(inputs, tmp_path)
    written = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/0.bin"))]
    again = {"train_passes": 1, "validation_passes": 1, "always": False}
    kept, report = once(inputs, tmp_path, **again)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/0.bin"))] == written
    assert (report.used, report.reason, report.bytes) == (True, "", first.bytes)
    assert_same(kept, inputs)
    assert not once(inputs, tmp_path, sources={"train": "c", "validation": "d"}, **again)[1].used
    smaller = inputs_of(dishes.select(range(5)), augment="light")
    assert not once(smaller, tmp_path, **again)[1].used


@pytest.mark.parametrize("damage", ["changed", "cut", "of others"])
def test_damaged_cache_entries_are_recomputed(tmp_path, dishes, damage):
    inputs = inputs_of(dishes.select(range(5)))
    once(inputs, tmp_path)
    (kept,) = list_cache(tmp_path)
    path = kept.folders[0] / "0.bin"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw[:-9] if damage == "cut" else raw)
    if damage == "of others":
        other, _ = once(inputs_of(dishes.select(range(4))), tmp_path / "other")
        (tmp_path / "gone").mkdir()
        kept.folders[0].rename(tmp_path / "gone" / "rows")
        other.train.dataset.rows.store.folder.rename(kept.folders[0])
    again, _ = once(inputs, tmp_path)
    assert_same(again, inputs)
    assert len(RowStore(kept.folders[0])) == 5


def test_too_small_a_limit(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(5)))
    kept, report = once(inputs, tmp_path, size_limit=1000)
    assert kept.train is inputs.train
    reason = "train: about 245,840 bytes are needed, but only 1,000 remain within the size limit"
    assert (report.used, report.reason, report.bytes) == (False, reason, 0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_limit_with_space_for_one_split(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(5)), dishes.select(range(5, 9)))
    kept, report = once(inputs, tmp_path, size_limit=300_000)
    assert kept.validation is inputs.validation and report.used and report.bytes == 245_840
    reason = "validation: about 196,608 bytes are needed, but only 54,160 remain within the size limit"
    assert report.reason == reason
    assert [each.about for each in list_cache(tmp_path)] == ["5 decoded images"]
    assert_same(kept, inputs)


def test_the_oldest_entries_are_evicted(tmp_path, dishes):
    rows = [(torch.zeros(25_000),)]
    write_rows(
        tmp_path / "old", rows, [RowFormat((25_000,), "float32", False)], {"about": "old", "examples": 1}
    )
    _, report = once(inputs_of(dishes.select(range(5))), tmp_path, size_limit=300_000)
    assert report.used
    assert [each.about for each in list_cache(tmp_path)] == ["5 decoded images"]


def test_images_larger_than_the_measured_sample(tmp_path, dishes, monkeypatch):
    monkeypatch.setattr(decoded_examples, "_measure", lambda *arguments: (1.0, 0.001, 1))
    inputs = inputs_of(dishes.select(range(5)))
    kept, report = once(inputs, tmp_path, size_limit=100_000, always=False)
    reason = "train: more than the 100,000 bytes that remain within the size limit are needed"
    assert report.reason == reason
    assert kept.train is inputs.train and list_cache(tmp_path) == []


def test_images_that_come_out_in_several_sizes(tmp_path):
    transform = ImageTransform(functional.pil_to_tensor, fixed=True)
    images = TransformedImages(images_of([noise(20, 30), noise(20, 31)]), transform)
    inputs = Inputs(SeededExamples(images, 0), None, list)
    kept, report = once(inputs, tmp_path)
    assert report.reason == "train: they have different sizes" and kept.train is inputs.train


@pytest.mark.parametrize("call", [1, 2], ids=["while measuring", "while writing"])
def test_a_full_disk(tmp_path, dishes, monkeypatch, call):
    calls = []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_rows(*arguments)

    monkeypatch.setattr(decoded_examples, "write_rows", full)
    inputs = inputs_of(dishes.select(range(5)))
    kept, report = once(inputs, tmp_path)
    assert len(calls) == call and kept.train is inputs.train
    assert (report.used, report.reason) == (False, "train: they cannot be cached: No space left on device")
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_other_errors_are_not_hidden(tmp_path, dishes, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(decoded_examples, "write_rows", broken)
    with pytest.raises(OSError, match="Input/output error"):
        once(inputs_of(dishes.select(range(5))), tmp_path)


def test_an_interrupted_writer_leaves_no_files_and_those_of_a_killed_one_are_removed(
    tmp_path, dishes, monkeypatch
):
    inputs = inputs_of(dishes.select(range(12)))
    before, real = torch.get_num_threads(), decoding.map_images

    def interrupted(rows, function):
        for number, row in enumerate(real(rows, function)):
            if number == 10:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "map_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            once(inputs, tmp_path)
    assert torch.get_num_threads() == before
    (lock,) = tmp_path.iterdir()
    left = tmp_path / f".{lock.stem}.part" / "probe"
    left.mkdir(parents=True)
    (left / "0.bin").write_bytes(b"half")
    kept, report = once(inputs, tmp_path)
    assert report.used and not left.parent.exists()
    assert_same(kept, inputs)


@pytest.mark.parametrize(
    ("passes", "read_seconds", "used"), [(5, 0.01, True), (5, 0.9, False), (1, 0.01, False)]
)
def test_images_are_cached_if_that_is_cheaper(tmp_path, dishes, monkeypatch, passes, read_seconds, used):
    monkeypatch.setattr(decoded_examples, "_measure", lambda *arguments: (1.0, read_seconds, 50_000))
    inputs = inputs_of(dishes.select(range(5)))
    kept, report = once(inputs, tmp_path, train_passes=passes, always=False)
    assert report.used == used and (kept.train is not inputs.train) == used
    assert len(list_cache(tmp_path)) == used


def test_benchmarks_leave_no_files_and_use_no_random_numbers(tmp_path, dishes):
    inputs = inputs_of(dishes.select(range(20)), dishes.select(range(20, 23)))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    kept, report = once(inputs, tmp_path, train_passes=1, validation_passes=0, always=False)
    assert torch.equal(torch.rand(3), expected)
    assert kept == inputs and not report.used
    assert report.reason.startswith("train: decoding takes ")
    assert report.reason.endswith(" ms, which does not pay off for 1 pass; validation: they are not read")
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_texts_are_left_as_they_are(tmp_path):
    inputs = Inputs(SeededExamples([{"input_ids": [1, 2]}], 0), [{"input_ids": [3]}], list)
    kept, report = once(inputs, tmp_path)
    assert kept == inputs and (report.used, report.reason) == (False, "there are no images")
    assert list(tmp_path.iterdir()) == []


WORTH = {"decode_seconds": 0.01, "read_seconds": 0.001, "passes": 5}
SPACE = {"bytes": 1000, "free_bytes": 5000, "size_limit": 2000}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"passes": 2, "read_seconds": 0.0019},  # 0.01 + 4 * 0.0019 = 0.0176, and 0.9 * 0.02 = 0.018
        {"free_bytes": 1000, "size_limit": 1000},
    ],
)
def test_what_is_worth_keeping(changes):
    assert reason_not_to_cache(**{**WORTH, **SPACE, **changes}) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size_limit": 999}, "about 1,000 bytes are needed, but only 999 remain within the size limit"),
        ({"free_bytes": 999}, "about 1,000 bytes are needed, but the disk has only 999 free"),
        (
            {"passes": 1, "read_seconds": 0.0},
            "decoding takes 10 ms per example and reading from the cache 0 ms, which does not pay off for 1 pass",
        ),
        (
            {"passes": 2, "read_seconds": 0.0021},
            "decoding takes 10 ms per example and reading from the cache 2.1 ms, which does not pay off for 2 passes",
        ),
    ],
)
def test_what_is_not_worth_keeping(changes, reason):
    assert reason_not_to_cache(**{**WORTH, **SPACE, **changes}) == reason
