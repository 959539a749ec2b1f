"""Bad inputs: tables of time series."""

from bad_input_case import Case
from bad_input_steps import do, rows, write

__all__ = ["CASES"]

RECIPE = """\
task: time-series-forecasting
model: {new: {layers: 1, hidden: 16}}
data:
  path: ./sales.csv
  columns: {series: shop, time: day, value: sold}
  horizon: 3
  context_length: 14
stages:
  - {name: all, train: all, epochs: 1, lr: 1e-3}
"""
DAYS = [f"{shop},2024-01-{day:02},{10 * day}" for shop in ("north", "south") for day in range(1, 31)]
TABLE = do(write("series.yaml", RECIPE), rows("sales.csv", "shop,day,sold", *DAYS))

CASES = [
    Case(
        "a series with a gap",
        "plan series.yaml",
        (
            "Problem:\n"
            "  The series must have a value at each step of 1 day. Got 'north' lacks times before 2024-01-11. Fill the "
            "gaps (0 for a day without sales is a value), or train with data.gaps: interpolate."
        ),
        do(
            TABLE,
            rows(
                "sales.csv", "shop,day,sold", *(row for row in DAYS if not row.startswith("north,2024-01-10"))
            ),
        ),
    ),
    Case(
        "two values of a series at one time",
        "plan series.yaml",
        (
            "Problem:\n"
            "  data.columns.time must have one row for each series and time. Got 1 row of a time that has one already: "
            "'north at 2024-01-30'. Remove or add up the rows of one time, or set data.columns.series to the column "
            "that tells them apart."
        ),
        do(TABLE, rows("sales.csv", "shop,day,sold", *DAYS, "north,2024-01-30,7")),
    ),
    Case(
        "a value that is no number",
        "plan series.yaml",
        (
            "Problem:\n"
            "  data.columns.value must contain in each row a number, or nothing for a missing value. Got 'many' in row "
            "60."
        ),
        do(TABLE, rows("sales.csv", "shop,day,sold", *DAYS, "north,2024-01-31,many")),
    ),
    Case(
        "series that are too short",
        "plan series.yaml data.horizon=9",
        (
            "Problem:\n"
            "  The series must have at least 8 past values, 9 values to learn to forecast, and for each example 9 "
            "more, 1 to validate and 1 to test. Got north (30 values), south (30 values). Lower data.horizon, "
            "data.context_length or the number of origins, or leave out short series with data.on_error: skip."
        ),
        TABLE,
    ),
    Case(
        "covariates that are no column",
        "plan series.yaml data.covariates=prices",
        (
            "Problem:\n"
            "  data.covariates must be columns of the data. Got 'prices'. Known: 'shop', 'day', 'sold'."
        ),
        TABLE,
    ),
    Case(
        "a context that the checkpoint does not have",
        "plan series.yaml model.new= model.path=./patches data.context_length=7",
        ("Problem:\n  data.context_length must be 16, the context length of the checkpoint. Got 7."),
        do(TABLE, lambda folder: _save_checkpoint(folder / "patches")),
    ),
]


def _save_checkpoint(folder):
    from hf_finetune.tasks import MODALITIES

    MODALITIES["series"].save_tiny_checkpoint(folder)
