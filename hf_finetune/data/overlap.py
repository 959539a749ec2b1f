"""Examples that two datasets share."""

from datasets import Dataset

from hf_finetune.tasks import modality_of

__all__ = ["count_shared"]


def count_shared(examples: Dataset, others: Dataset) -> int:
    """Return the number of examples whose exact input is also in another dataset.

    Args:
        examples: Dataset with the columns of a split of ``LabelledData``.
        others: Dataset to compare with, with the same columns.
    """
    modality = modality_of(examples.column_names)
    known = set(modality.hashes(others)[0])
    return sum(content in known for content in modality.hashes(examples)[0])
