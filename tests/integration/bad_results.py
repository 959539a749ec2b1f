"""Metrics, costs and columns that cannot be used."""

from bad_input_case import Case
from bad_input_steps import rows

from hf_finetune.data.input_columns import INPUT_KEYS

__all__ = ["CASES"]

PAIRS = '{"premise": "a", "hypothesis": "b"}'

CASES = [
    Case(
        "the scikit-learn name of a metric",
        "run text.yaml metrics=[mcc]",
        (
            "Problem:\n"
            "  metrics[0] must be a metric for the label type single_label. Got 'mcc'. Use "
            "'matthews_correlation'."
        ),
    ),
    Case(
        "the recall of an unknown class",
        "run text.yaml metrics=[recall:god]",
        "Problem:\n  metrics[0] must be 'recall:' followed by a class of the data. Got 'recall:god'. "
        "Nearest: 'good'.",
    ),
    Case(
        "a top-k accuracy with k equal to the number of classes",
        "run text.yaml metrics=[top_3_accuracy]",
        "Problem:\n  metrics[0] must have a k smaller than the number of classes (2). Got 'top_3_accuracy'.",
    ),
    Case(
        "an expected cost without costs",
        "run text.yaml metrics=[expected_cost]",
        (
            "Problem:\n"
            "  metrics[0] must be a metric for the label type single_label. Got 'expected_cost'. Set the "
            "misclassification costs in evaluation.costs."
        ),
    ),
    Case(
        "costs of an unknown class",
        "run text.yaml 'evaluation.costs={good: {bda: 2}}'",
        (
            "Problem:\n"
            "  evaluation.costs.good must be a class of the data, or default. Got 'bda'. Nearest: 'bad'."
        ),
    ),
    Case(
        "`evaluation.top_k` for labels of one class",
        "run text.yaml evaluation.top_k=2",
        "Problem:\n  evaluation.top_k is only supported for multi-label data. Got single_label labels.",
    ),
    Case(
        "`evaluation.top_k` with fitted thresholds",
        "run text.yaml evaluation.top_k=2 evaluation.thresholds=common",
        (
            "Problem:\n"
            "  evaluation.thresholds must not be set next to evaluation.top_k. Remove one of the two: the most "
            "probable classes are predicted whatever their probabilities."
        ),
    ),
    Case(
        "`evaluation.top_k` of all classes",
        "run text.yaml data.path=tags.csv 'data.columns={text: text, label: {name: tags, separator: \"|\"}}' "
        "evaluation.top_k=2 metrics=[jaccard]",
        "Problem:\n  evaluation.top_k must be less than the number of classes, 2. Got 2.",
        rows("tags.csv", "text,tags", *(f"text {number},good|bad" for number in range(20))),
    ),
    Case(
        "an unknown key in `--column`",
        "predict bert reviews.csv --column texts=text",
        f"Problem:\n  --column must set one of {', '.join(INPUT_KEYS)}. Got 'texts'. Nearest: 'text'.",
    ),
    Case(
        "an unknown column in `--column`",
        "predict bert pairs.jsonl --column text=premis",
        ("Problem:\n  pairs.jsonl must have the column 'premis', which is set for text. Nearest: 'premise'."),
        rows("pairs.jsonl", PAIRS),
    ),
    Case(
        "a table with two text columns",
        "predict bert pairs.jsonl",
        (
            "Problem:\n"
            "  pairs.jsonl must have exactly one possible text column. Got columns 'premise', "
            "'hypothesis'. Rename the column with the texts to 'text', or set --column text=NAME."
        ),
        rows("pairs.jsonl", PAIRS),
    ),
]
