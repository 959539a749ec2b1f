"""Tables of many columns take as many passes over the data as tables of few."""

from collections import Counter

import pytest
from data_helpers import prepare_data
from datasets import Dataset

from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

STEPS = (
    "__getitem__",
    "add_column",
    "cast",
    "cast_column",
    "map",
    "rename_columns",
    "select",
    "select_columns",
)


@pytest.fixture
def steps(monkeypatch):
    """Count the operations on whole datasets, each of which copies the types of all columns."""
    counts = Counter()
    for name in STEPS:
        monkeypatch.setattr(Dataset, name, counted(name, getattr(Dataset, name), counts))
    return counts


def counted(name, original, counts):
    def call(*args, **options):
        counts[name] += 1
        return original(*args, **options)

    return call


def write(file, columns, value):
    names = [f"c{number}" for number in range(columns)]
    rows = [",".join([f"film {row}", "ab"[row % 2], *[value] * columns]) for row in range(40)]
    file.write_text("\n".join([",".join(["text", "label", *names]), *rows, ""]))
    return str(file)


@pytest.mark.parametrize("value", ["0.5", "word", "train", "true"])
@pytest.mark.parametrize("columns", [{}, {"split": None}])
def test_the_steps_over_a_table_do_not_grow_with_its_columns(tmp_path, steps, value, columns):
    counts = []
    for wide in (3, 30):
        steps.clear()
        prepare_data(
            write(tmp_path / f"{wide}.csv", wide, value), modality=MODALITIES["text"], columns=columns
        )
        counts.append(dict(steps))
    assert counts[0] == counts[1]


def test_a_message_names_the_first_columns_and_counts_the_rest(tmp_path):
    with pytest.raises(InputError) as error:
        prepare_data(write(tmp_path / "wide.csv", 100, "0.5"), modality=MODALITIES["image"])
    shown = ", ".join(repr(f"c{number}") for number in range(18))
    assert str(error.value) == (
        "data.columns.image must be set, because no column looks like images. Got columns 'text', 'label', "
        f"{shown} and 82 more. Set data.columns.image to one of them."
    )
    with pytest.raises(InputError) as error:
        prepare_data(str(tmp_path / "wide.csv"), modality=MODALITIES["text"], columns={"label": "stars"})
    assert len(str(error.value)) < 600
