"""The kinds of labels, one file each, and everything that depends on them."""

from hf_finetune.targets.base import TARGETS, Target
from hf_finetune.targets.multi_label import MultiLabel
from hf_finetune.targets.regression import Regression
from hf_finetune.targets.single_label import SingleLabel

__all__ = ["TARGETS", "MultiLabel", "Regression", "SingleLabel", "Target"]

for _kind in (SingleLabel, MultiLabel, Regression):
    TARGETS.add(_kind())
