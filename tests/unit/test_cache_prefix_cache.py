"""The prefix cache: number of versions, parts of entries, their processes, and when it is worthwhile."""

from dataclasses import replace

import pytest
import torch
from accelerate import PartialState
from stage_helpers import Examples, collate
from torch.utils.data import Subset

from hf_finetune.cache import prefix_cache, writer
from hf_finetune.cache.cache_dir import list_cache
from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.find_cut import find_cut
from hf_finetune.cache.prefix_cache import CacheSettings, SharedRows, cache_prefix
from hf_finetune.cache.replay import PREFIX, PrefixRunner
from hf_finetune.cache.views import choose_views, saved_seconds
from hf_finetune.cache.writer import PrefixWriter, RowCost, Version, part_ranges
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.selectors import select
from hf_finetune.tasks import Inputs
from hf_finetune.training.freezing import freeze_all_but

COST = RowCost(compute=0.010, write=0.001, read=0.0005, bytes=100)


class Versions(Examples):
    """Examples that differ from epoch to epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return {**example, "pixel_values": example["pixel_values"] + self.epoch}


@pytest.fixture
def model(tiny_model):
    made = tiny_model("timm/test_resnet")
    freeze_all_but(made, select(read_layout(made), "head"))
    return made.train()


@pytest.fixture
def settings(tmp_path):
    return CacheSettings(
        tmp_path / "cache",
        views=2,
        epochs=None,
        size_limit=10**9,
        sources={"train": "tests", "validation": "held out"},
    )


def keep(model, train, settings, validation=None, batch_size=4, shared=None):
    return cache_prefix(
        model,
        select(read_layout(model), "head"),
        Inputs(train, validation, collate),
        settings,
        batch_size=batch_size,
        state=PartialState(cpu=True),
        shared=shared,
    )


@pytest.mark.parametrize(
    ("epochs", "augmented", "views"),
    [
        (1, True, 1),
        (1.5, True, 2),
        (2, True, 2),
        (10, True, 2),
        (11, True, 3),
        (100, True, 3),
        (100, False, 1),
    ],
)
def test_the_number_of_versions(epochs, augmented, views):
    assert choose_views(epochs, augmented=augmented) == views


def test_time_that_a_cache_saves():
    assert saved_seconds(COST, epochs=5, views=2) == pytest.approx(5 * 0.0095 - 2 * 0.011)
    assert saved_seconds(COST, epochs=2, views=2) < 0


@pytest.mark.parametrize("count", [1, 7, 8, 31, 32, 33, 679, 100_000])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_parts_contain_full_batches_and_every_example_once(count, batch_size):
    parts = part_ranges(count, batch_size)
    assert [index for part in parts for index in part] == list(range(count))
    assert all(part.start % batch_size == 0 for part in parts)
    assert 1 <= len(parts) <= 16
    assert len(parts) == 1 or all(len(part) > 7 * batch_size for part in parts)


def test_processes_share_the_parts_and_give_the_rows_of_one(tmp_path, model, monkeypatch):
    examples, trainable = Versions(model, 40), select(read_layout(model), "head")
    monkeypatch.setattr("hf_finetune.cache.writer.MIN_BATCHES_PER_PART", 2)  # small parts of few examples
    probes = [collate([examples[index] for index in range(count)]) for count in (2, 3)]
    for probe in probes:
        probe.pop("labels")
    entry = PrefixRunner(model, find_cut(model, trainable, (probes[0], probes[1])))
    alone, shared = (
        PrefixWriter(entry, collate, 4, 0, torch.device("cpu"), tmp_path / name, 10**9)
        for name in ("one", "two")
    )
    versions = [Version(examples, f"rows-{view}", view) for view in range(2)]
    alone.write_missing(versions)
    shared.write_missing(versions, 0, 2)
    first = {path.name for path in (tmp_path / "two").iterdir() if path.is_dir()}
    assert shared.incomplete_versions(versions) == versions
    shared.write_missing(versions, 1, 2)
    assert shared.incomplete_versions(versions) == []
    assert (
        len(first) == 5 and len({path.name for path in (tmp_path / "two").iterdir() if path.is_dir()}) == 10
    )
    for version in versions:
        one, other = alone.read(version), shared.read(version)
        assert len(one) == len(other) == 40
        for index in range(40):
            assert all(torch.equal(a, b) for a, b in zip(one[index], other[index], strict=True))


@pytest.mark.slow
def test_rows_kept_with_one_batch_size_are_right_for_another(model, settings, monkeypatch):
    """Parts hold whole batches, so that they begin at other examples: one must not pass for another."""
    monkeypatch.setattr("hf_finetune.cache.writer.MIN_BATCHES_PER_PART", 2)
    examples = Versions(model, 40)
    labels = [int(examples[index]["labels"]) for index in range(40)]
    for batch_size in (16, 4, 3, 1):
        kept = keep(model, examples, settings, batch_size=batch_size)
        assert len(kept.train.views[0]) == 40
        assert [int(kept.train[index]["labels"]) for index in range(40)] == labels


def test_epochs_cycle_through_the_versions(model, settings):
    kept = keep(model, Versions(model, 9), settings)
    seen = []
    for epoch in range(4):
        kept.train.set_epoch(epoch)
        seen.append(kept.train[5][PREFIX][0])
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_subsets_of_the_same_examples_share_their_rows(model, settings):
    examples = Versions(model, 12)
    folds = [Subset(examples, [0, 3, 5, 7, 8, 11]), Subset(examples, [1, 3, 9, 4, 2])]
    first = keep(model, folds[0], settings)
    written = {path: path.stat().st_mtime_ns for path in settings.folder.rglob("*.bin")}
    second = keep(model, folds[1], settings)
    assert {path: path.stat().st_mtime_ns for path in settings.folder.rglob("*.bin")} == written
    assert len(first.train) == 6 and len(second.train) == 5
    for one, other in ((first.train[1], second.train[1]),):
        assert torch.equal(one[PREFIX][0], other[PREFIX][0]) and one["labels"] == other["labels"]
    whole = keep(model, examples, settings)
    assert [int(second.train[row]["labels"]) for row in range(5)] == [
        int(whole.train[index]["labels"]) for index in (1, 3, 9, 4, 2)
    ]


class Wrong(PrefixRunner):
    """Computes something else than what the prefix gives."""

    def collect(self, batch):
        return tuple(value + 1 for value in super().collect(batch))


def test_shared_rows_are_used_only_if_they_equal_the_outputs_of_the_prefix(model, settings):
    examples, settings = Versions(model, 9), replace(settings, views=1)
    expected = [keep(model, examples, settings).train[index][PREFIX][0] for index in range(9)]
    cut = keep(model, examples, settings).runner.cut
    for name, runner in (("right", PrefixRunner(model, cut)), ("wrong", Wrong(model, cut))):
        kept = keep(model, examples, settings, shared=SharedRows(runner, name))
        assert all(torch.equal(kept.train[index][PREFIX][0], expected[index]) for index in range(9)), name
        own = {entry.name for entry in list_cache(settings.folder)}
        assert len(own) == 2, "its own rows, and the right ones"
    read = keep(model, examples, settings, shared=SharedRows(PrefixRunner(model, cut), "right")).train
    (read.views[0].stores[0].folder / "0.bin").write_bytes(b"damaged")
    again = keep(model, examples, settings, shared=SharedRows(PrefixRunner(model, cut), "right")).train
    assert torch.equal(again[3][PREFIX][0], expected[3])


def test_splits_of_the_same_examples_share_their_rows(model, settings):
    """The folds of a cross-validation: training and validation examples are parts of one pool."""
    pool, same = Examples(model, 12), {"train": "pool", "validation": "pool"}
    train, validation = Subset(pool, [0, 3, 5, 7, 8, 11]), Subset(Examples(model, 12), [1, 2])
    kept = keep(model, train, replace(settings, views=1, sources=same), validation)
    assert len(list_cache(settings.folder)) == 1
    assert [int(kept.validation[row]["labels"]) for row in range(2)] == [
        int(pool[index]["labels"]) for index in (1, 2)
    ]
    keep(model, pool, replace(settings, views=1, sources={"train": "pool"}))
    assert len(list_cache(settings.folder)) == 1


def test_rows_of_another_batch_size_are_not_used(model, settings):
    """The last bits of an output can depend on the other examples of its batch."""
    examples = Examples(model, 6)
    for count, batch_size in enumerate((4, 3), 1):
        keep(model, examples, replace(settings, views=1), batch_size=batch_size)
        assert len(list_cache(settings.folder)) == count


def test_nothing_is_kept_where_little_time_is_saved(model, settings, monkeypatch):
    monkeypatch.setattr(PrefixWriter, "measure", lambda self, examples: COST)
    with pytest.raises(CacheUnavailableError, match="caching would save less than 2 s"):
        keep(model, Versions(model, 9), replace(settings, epochs=5))
    assert list_cache(settings.folder) == []
    keep(model, Versions(model, 9), replace(settings, epochs=5_000))
    assert len(list_cache(settings.folder)) == 2


def test_a_machine_that_pauses_does_not_pass_for_a_slow_model(model, settings, monkeypatch):
    """A batch takes 0.004 s, except one of 30 s; writing and reading take no time."""
    clock = iter([0.0, 0.004, 30.004, 30.008])
    monkeypatch.setattr(writer, "perf_counter", lambda: next(clock, 30.008))
    with pytest.raises(CacheUnavailableError, match="caching would save less than 2 s"):
        keep(model, Versions(model, 12), replace(settings, epochs=5))


def test_existing_entries_are_used_however_little_they_save(model, settings):
    keep(model, Versions(model, 9), settings)
    assert keep(model, Versions(model, 9), replace(settings, epochs=3)).report.used


def test_existing_entries_count_towards_the_size_limit(model, settings):
    keep(model, Versions(model, 9), settings)
    stored = sum(entry.bytes for entry in list_cache(settings.folder))
    with pytest.raises(CacheUnavailableError, match=f"and the size limit is {stored + 1:,}"):
        keep(model, Versions(model, 9), replace(settings, size_limit=stored + 1), Examples(model, 5))
    assert sum(entry.bytes for entry in list_cache(settings.folder)) == stored


def test_fewer_versions_are_kept_where_the_limit_is_small(model, settings, monkeypatch):
    monkeypatch.setattr(prefix_cache, "MIN_GAIN_SECONDS", -1.0)
    monkeypatch.setattr(PrefixWriter, "measure", lambda self, examples: COST)
    many = replace(settings, views=3, epochs=20)
    kept = keep(model, Versions(model, 9), replace(many, size_limit=100 * (5 + 2 * 9)), Examples(model, 5))
    assert kept.report.views == 2
    with pytest.raises(
        CacheUnavailableError, match=r"would take about 1,400 bytes, and the size limit is 1,399"
    ):
        keep(
            model,
            Versions(model, 9),
            replace(many, sources={"train": "other", "validation": "third"}, size_limit=1399),
            Examples(model, 5),
        )


def test_no_more_versions_are_kept_than_can_be_computed_in_the_time(model, settings, monkeypatch):
    """Nine training and five validation examples: 10 ms to compute and 1 ms to write each."""
    monkeypatch.setattr(writer.PrefixWriter, "measure", lambda self, examples: COST)
    monkeypatch.setattr(prefix_cache, "MIN_GAIN_SECONDS", 0.0)
    settings, validation = replace(settings, epochs=10.0), Examples(model, 5)
    for number, (seconds, views) in enumerate([(0.3, 2), (0.2, 1), (0.16, 1)]):
        limited = replace(settings, folder=settings.folder / str(number), seconds_limit=seconds)
        assert keep(model, Versions(model, 9), limited, validation).report.views == views
    with pytest.raises(CacheUnavailableError, match="would take too much of the time limit"):
        keep(model, Versions(model, 9), replace(settings, seconds_limit=0.15), validation)
