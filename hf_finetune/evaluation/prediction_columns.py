"""Names of the columns of a file of predictions."""

__all__ = ["LABEL_PROBABILITY", "LABEL_RANK", "PROBABILITY", "TOP_CLASSES", "TOP_PROBABILITIES"]

PROBABILITY = "probability:"
"""Prefix of the probability columns; the class name follows."""
TOP_CLASSES, TOP_PROBABILITIES = "top_classes", "top_probabilities"
"""The most probable classes of an example, and their probabilities, if there is no column for each class."""
LABEL_PROBABILITY, LABEL_RANK = "label_probability", "label_rank"
"""Probability of the label, and its rank among the probabilities of the example."""
