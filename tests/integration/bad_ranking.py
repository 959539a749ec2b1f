"""Bad inputs: queries with candidates."""

from bad_input_case import Case
from bad_input_steps import do, rows, write

__all__ = ["CASES"]

RECIPE = """\
task: text-ranking
model: ./bert
data:
  path: ./pairs.csv
  columns: {query: wish, candidate: dish, label: right}
stages:
  - {name: all, train: all, epochs: 1, lr: 1e-3}
"""
PAIRS = [f"wish {number // 3},dish {number},{int(number % 3 == 0)}" for number in range(60)]
TABLE = do(write("ranking.yaml", RECIPE), rows("pairs.csv", "wish,dish,right", *PAIRS))

CASES = [
    Case(
        "a ranking that is grouped by another column than the queries",
        "plan ranking.yaml data.split.group=dish",
        (
            "Problem:\n"
            "  data.split.group must be the column of data.columns.query, 'wish', or null. Got 'dish'."
        ),
        TABLE,
    ),
    Case(
        "a negative relevance",
        "plan ranking.yaml",
        (
            "Problem:\n"
            "  The label column must be from 0 (not relevant) to 30. Got others in 'train:0'. Grades are usually 0 and "
            "1, or 0 to 4."
        ),
        do(TABLE, rows("pairs.csv", "wish,dish,right", "wish 0,dish 0,-1", *PAIRS[1:])),
    ),
    Case(
        "a ranking without candidates",
        "plan ranking.yaml data.columns.candidate=",
        (
            "Problem:\n"
            "  data.columns.candidate must be set, because no column looks like candidates. Got columns 'wish', "
            "'right'. Set data.columns.candidate to one of them."
        ),
        do(TABLE, rows("pairs.csv", "wish,right", *(f"wish {number},1" for number in range(30)))),
    ),
    Case(
        "candidates as a list without as many labels",
        "plan ranking.yaml data.path=lists.jsonl",
        (
            "Problem:\n"
            "  data.columns.label must be a list with a label for each candidate. Got 1 label for 2 candidates in "
            "train:0."
        ),
        do(TABLE, write("lists.jsonl", '{"wish": "soup", "dish": ["a", "b"], "right": [1]}\n')),
    ),
    Case(
        "a list of one candidate",
        "plan ranking.yaml data.list_size=1",
        "Problem:\n  data.list_size must be at least 2. Got 1.",
        TABLE,
    ),
]
