"""Arguments of the Trainer for a stage."""

from stage_helpers import collate
from transformers import TrainingArguments

from hf_finetune.models.layout import read_layout
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import PlannedStage, build_plan
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.training import arguments
from hf_finetune.training.stage_inputs import StageData, StageEvaluation, StageOutput


class TwoGPUs(TrainingArguments):
    """As on a machine with two GPUs, started without a launcher."""

    def __post_init__(self):
        super().__post_init__()
        self._n_gpu = 2


def test_of_several_gpus_one_process_uses_one(tmp_path, tiny_model, monkeypatch, caplog):
    """The Trainer of transformers 5.23 would wrap the model in DataParallel by default, and multiply its loss."""
    caplog.set_level("INFO")
    monkeypatch.setattr(arguments, "TrainingArguments", TwoGPUs)
    stage = StageSpec.model_validate(
        {"name": "head", "train": "head", "epochs": 1, "lr": 0.1, "batch_size": 4}
    )
    plan = build_plan(read_layout(tiny_model("bert")), (stage,), 8).stages[0]
    made = arguments.training_arguments(
        PlannedStage(stage, plan),
        ExecutionMode(),
        StageData("single_label", [], collate),
        StageEvaluation(4),
        StageOutput(tmp_path),
    )
    assert (made.n_gpu, made.train_batch_size) == (1, 4)
    assert caplog.messages == ["Using one of 2 GPUs; accelerate launch uses all of them."]
