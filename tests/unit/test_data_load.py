import errno
import json
import zipfile
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from PIL import Image

from hf_finetune.data import load, table_files
from hf_finetune.data.load import load_source
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # a request for each load


def picture(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)


def test_class_folders_keep_their_labels_and_paths(tmp_path):
    root = tmp_path / "food [new]"  # characters that a file pattern would interpret
    picture(root / "soup" / "1.png")
    picture(root / "cake" / "2.png")
    picture(root / "cake" / "3.JPG")
    (root / "cake" / "metadata.csv").write_text("file_name,label\n2.png,other\n")
    with zipfile.ZipFile(root / "cake" / "more.zip", "w") as archive:
        archive.write(root / "cake" / "2.png", "4.png")
    train = load_source(str(root), modality=MODALITIES["image"]).splits["train"]
    assert train.features["label"].names == ["cake", "soup"]
    names = [
        Path(image["path"]).name
        for image in train.cast_column("image", datasets.Image(decode=False))["image"]
    ]
    assert list(zip(names, train["label"], strict=True)) == [("3.JPG", 0), ("2.png", 0), ("1.png", 1)]


def test_split_folders(tmp_path):
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "soup" / "1.png")
        picture(tmp_path / split / "cake" / "1.png")
    source = load_source(str(tmp_path), modality=MODALITIES["image"])
    assert {split: len(dataset) for split, dataset in source.splits.items()} == {
        "train": 2,
        "validation": 2,
        "test": 2,
    }
    assert source.root == tmp_path


ROWS = [{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}]


def write_rows(path, rows=ROWS):
    if path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        Dataset.from_list(rows).to_parquet(str(path))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_data_files(tmp_path, suffix):
    write_rows(tmp_path / f"reviews.{suffix}")
    for path in (tmp_path, tmp_path / f"reviews.{suffix}"):
        source = load_source(str(path), modality=MODALITIES["text"])
        assert source.splits["train"][:] == {"text": ["good", "bad"], "label": ["pos", "neg"]}


def test_splits_in_files_may_differ_in_their_columns(tmp_path):
    write_rows(tmp_path / "train.csv")
    (tmp_path / "test.csv").write_text("text\nfair\n")
    assert load_source(str(tmp_path), modality=MODALITIES["text"]).splits["test"].column_names == ["text"]


def test_only_an_empty_cell_of_a_csv_is_missing(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nNA,None\nnull,\n")
    assert load_source(str(tmp_path), modality=MODALITIES["text"]).splits["train"][:] == {
        "text": ["NA", "null"],
        "label": ["None", None],
    }


def test_saved_datasets(tmp_path):
    plain = Dataset.from_list(ROWS)
    plain.with_format("numpy").save_to_disk(tmp_path / "one")
    DatasetDict({"train": plain, "dev": plain, "extra": plain}).save_to_disk(tmp_path / "several")
    one = load_source(str(tmp_path / "one"), modality=MODALITIES["text"])
    assert list(one.splits) == ["train"]
    assert one.splits["train"].format["type"] is None
    several = load_source(str(tmp_path / "several"), modality=MODALITIES["text"])
    assert list(several.splits) == ["train", "validation"]
    assert several.notes == ("Splits that were not used: 'extra'.",)


def test_config_and_revision_are_not_for_local_data(tmp_path):
    write_rows(tmp_path / "train.csv")
    source = load_source(str(tmp_path), modality=MODALITIES["text"], config="plain_text")
    assert source.notes == (
        "data.config and data.revision apply to datasets on the Hub; this data is local, so they were "
        "ignored.",
    )


def test_every_unreadable_file_is_reported(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    (tmp_path / "test.csv").write_bytes(b"text,label\n\xff\xfe,1\n")
    with pytest.raises(InputError) as error:
        load_source(str(tmp_path), modality=MODALITIES["text"])
    test, train = error.value.problems
    assert (train.place, train.rule) == ("train.parquet", "must be readable as parquet")
    assert train.value.startswith("ArrowInvalid: Parquet magic bytes not found")
    assert str(test) == (
        "test.csv must be readable as UTF-8. Got invalid bytes in line 2. Save it again as UTF-8, or set "
        "data.encoding: cp1252 reads 'ÿþ,1', cp1250 reads '˙ţ,1', cp1251 reads 'яю,1'."
    )


def test_a_damaged_saved_dataset(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(InputError) as error:
        load_source(str(tmp_path), modality=MODALITIES["text"])
    assert str(error.value) == (
        f"{tmp_path} must be readable as a saved dataset. "
        f"Got JSONDecodeError: Expecting property name enclosed "
        "in double quotes: line 1 column 2 (char 1)."
    )


def test_a_full_disk_is_no_wrong_input(tmp_path, monkeypatch):
    write_rows(tmp_path / "train.parquet")

    def fail(*args, **kwargs):
        raise DatasetGenerationError("An error occurred") from OSError(
            errno.ENOSPC, "No space left on device"
        )

    monkeypatch.setattr(table_files, "load_dataset_builder", fail)
    with pytest.raises(OSError, match="No space left on device"):
        load_source(str(tmp_path), modality=MODALITIES["text"])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Fake of the Hub: returns or raises prepared results, and records its calls."""
    monkeypatch.chdir(tmp_path)
    asked = {}

    def answer(result):
        def stand_in(path, name=None, revision=None):
            asked.update(path=path, name=name, revision=revision)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(load, "load_dataset", stand_in)
        return asked

    return answer


def test_a_hub_dataset(hub):
    rows = Dataset.from_list(ROWS)
    asked = hub(DatasetDict({"train": rows, "test": rows, "unsupervised": rows}))
    source = load_source(
        "stanfordnlp/imdb", modality=MODALITIES["text"], config="plain_text", revision="main"
    )
    assert asked == {"path": "stanfordnlp/imdb", "name": "plain_text", "revision": "main"}
    assert list(source.splits) == ["train", "test"]
    assert source.root is None
    assert source.notes == ("Splits that were not used: 'unsupervised'.",)


def test_a_single_split_of_another_name_is_train(hub):
    hub(DatasetDict({"full": Dataset.from_list(ROWS)}))
    assert list(load_source("a/b", modality=MODALITIES["text"]).splits) == ["train"]


def test_no_split_of_a_known_name(hub):
    hub(DatasetDict({"part1": Dataset.from_list(ROWS), "part2": Dataset.from_list(ROWS)}))
    with pytest.raises(InputError) as error:
        load_source("a/b", modality=MODALITIES["text"])
    assert str(error.value) == "data.path must have a train, validation or test split. Got 'part1', 'part2'."


def test_an_unknown_hub_id(hub, tmp_path):
    hub(DatasetNotFoundError("Dataset 'nobody/nothing' doesn't exist on the Hub"))
    with pytest.raises(InputError) as error:
        load_source("nobody/nothing", modality=MODALITIES["text"])
    assert str(error.value) == (
        f"data.path must be a dataset on the Hub. Got 'nobody/nothing'. It does not exist in '{tmp_path}' "
        "either. Check the name and the revision, or log in with `hf auth login` if it is private."
    )


def test_no_network(hub, tmp_path):
    hub(ConnectionError("Couldn't reach 'imdb' on the Hub (LocalEntryNotFoundError)"))
    with pytest.raises(InputError) as error:
        load_source("imdb", modality=MODALITIES["text"])
    assert str(error.value) == (
        "data.path must be local if the Hub cannot be reached. Got 'imdb'. It does not exist in "
        f"'{tmp_path}' either. Check the path, or connect to the Hub and try again."
    )


def test_an_unknown_configuration(hub):
    hub(ValueError("BuilderConfig 'x' not found. Available: ['cola', 'sst2']"))
    with pytest.raises(InputError) as error:
        load_source("nyu-mll/glue", modality=MODALITIES["text"], config="x")
    assert str(error.value) == (
        "The Hub dataset 'nyu-mll/glue' must be loadable. "
        "Got ValueError: BuilderConfig 'x' not found. Available: ['cola', 'sst2']. "
        "Check data.config and data.revision."
    )
