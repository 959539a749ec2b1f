"""Label types, one file each, and everything that depends on them."""

from hf_finetune.targets.base import TARGETS, Target, requested_target
from hf_finetune.targets.forecast import Forecast
from hf_finetune.targets.multi_label import MultiLabel
from hf_finetune.targets.regression import Regression
from hf_finetune.targets.relevance import Relevance
from hf_finetune.targets.single_label import SingleLabel
from hf_finetune.targets.transcript import Transcript

__all__ = ["ASSUMED_TARGET", "TARGETS", "Target", "requested_target"]

for _kind in (SingleLabel, MultiLabel, Regression, Transcript, Forecast, Relevance):
    TARGETS.add(_kind())

ASSUMED_TARGET = SingleLabel.name
"""Label type that is assumed while the data is unknown."""
