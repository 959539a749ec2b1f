"""Names of the columns of a file of predictions."""

__all__ = [
    "LABEL_MIDDLE_RANK",
    "LABEL_PROBABILITY",
    "LABEL_RANK",
    "PROBABILITY",
    "TOP_CLASSES",
    "TOP_PROBABILITIES",
]

PROBABILITY = "probability:"
"""Prefix of the probability columns; the class name follows."""
TOP_CLASSES, TOP_PROBABILITIES = "top_classes", "top_probabilities"
"""The most probable classes of an example, and their probabilities, if there is no column for each class."""
LABEL_PROBABILITY, LABEL_RANK, LABEL_MIDDLE_RANK = "label_probability", "label_rank", "label_middle_rank"
"""Probability of the label, and its rank among the probabilities of the example."""
