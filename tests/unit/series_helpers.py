"""Tables of time series, and what is read and cut from them."""

import pytest
from datasets import Dataset

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks.series.observations import read_observations
from hf_finetune.tasks.series.windows import cut_windows

COLUMNS = {"series": "series", "time": "time", "value": "value"}


def data_of(**fields):
    content = {"task": "time-series-forecasting", "model": {"new": {}}, "data": {"path": "p", **fields}}
    return parse_recipe({**content, "stages": [{"name": "all", "train": "all", "epochs": 1}]}).data


def months(count, start=0):
    return [f"{2000 + (start + index) // 12}-{(start + index) % 12 + 1:02d}-01" for index in range(count)]


def table(series=2, length=60, times=None):
    """Return rows whose value tells series and position: 1000 times the series, plus the position."""
    times = times or months(length)
    rows = [
        (f"s{index}", times[place], 1000.0 * index + place)
        for index in range(series)
        for place in range(length)
    ]
    names, cells, values = zip(*rows, strict=True)
    return {"series": list(names), "time": list(cells), "value": list(values)}


def read(rows, columns=COLUMNS, **options):
    return read_observations(rows, columns, **{"decimal": None, "gaps": "error", **options})


def cut(rows, **fields):
    columns = data_of().columns.model_dump()
    return cut_windows({"train": Dataset.from_dict(rows)}, columns, data_of(**fields))


def problem(call):
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)
