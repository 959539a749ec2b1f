"""The better of two evaluations: by the metric, then the loss; undefined values are last."""

import json
import logging
import math

import pytest
from stage_helpers import Examples, train_stages

from hf_finetune.planning.best_epoch import best_entry, is_better
from hf_finetune.training.checkpoints import last_checkpoint
from hf_finetune.training.stage_result import StageResult, result_lines

NAN = math.nan


def entry(score, loss, step=0):
    return {"eval_score": score, "eval_loss": loss, "step": step}


@pytest.mark.parametrize(
    ("later", "earlier", "greater", "better"),
    [
        ((0.8, 2.0), (0.7, 1.0), True, True),
        ((0.8, 2.0), (0.7, 1.0), False, False),
        ((0.7, 0.9), (0.7, 1.0), True, True),  # a tie is broken by the loss
        ((0.7, 0.9), (0.7, 1.0), False, True),
        ((0.7, 1.0), (0.7, 1.0), True, False),  # equal: the earlier
        ((NAN, 0.9), (NAN, 1.0), True, True),  # undefined: the loss decides
        ((NAN, 1.1), (NAN, 1.0), True, False),
        ((0.0, 9.0), (NAN, 1.0), True, True),
        ((NAN, 0.1), (0.0, 1.0), True, False),
        ((0.7, 1.0), (0.7, NAN), True, True),
    ],
)
def test_the_leading_metric_then_the_loss(later, earlier, greater, better):
    assert is_better(entry(*later), entry(*earlier), "score", greater_is_better=greater) is better


def test_the_best_of_a_log_is_found_among_its_evaluations():
    log = [
        entry(0.5, 1.0, 0),
        {"loss": 0.1, "step": 1},
        entry(0.7, 0.9, 2),
        entry(0.7, 0.8, 4),
        entry(0.6, 0.1, 6),
    ]
    assert best_entry(log, "score", greater_is_better=True)["step"] == 4
    assert best_entry(log, "loss", greater_is_better=False)["step"] == 6
    assert best_entry([], "score", greater_is_better=True) is None


def test_a_stage_that_is_worse_than_its_start_is_reported_in_one_line():
    start, end = {"accuracy": 0.667, "loss": 0.9}, {"accuracy": 0.608, "loss": 1.1}
    kept = StageResult(8.0, 80, 0, start, None, None, start=start, trained={**end, "step": 30})
    assert result_lines("all", kept, "accuracy", leading="accuracy", greater_is_better=True) == [
        "Stage all: no epoch improved on the initial weights (accuracy 0.6670, loss 0.9000; best evaluation in epoch "
        "3 of 8: accuracy 0.6080, loss 1.1000), so they are restored."
    ]
    last = StageResult(8.0, 80, None, end, None, None, start=start)
    assert result_lines("all", last, None, leading="accuracy", greater_is_better=True) == [
        "Stage all: the model became worse (accuracy 0.6670, loss 0.9000 at the start; accuracy 0.6080, loss 1.1000 at "
        "the end). With best: null the last weights are kept."
    ]
    better = StageResult(8.0, 80, None, start, None, None, start=end)
    assert result_lines("all", better, None, leading="accuracy", greater_is_better=True) == []


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._determine_best_metric",
    why="The loss breaks ties and replaces an undefined metric",
)
def test_an_undefined_metric_is_reported_at_once_and_the_loss_decides(tmp_path, tiny_model, caplog):
    """For example a rank correlation of constant predictions, which only the run itself can detect."""
    model = tiny_model("bert")
    caplog.set_level(logging.WARNING, "hf_finetune")
    train_stages(
        model,
        tmp_path,
        ["head"],
        validation=Examples(model, 4),
        compute_metrics=lambda prediction: {"accuracy": NAN},
        best_metric="accuracy",
        epochs=3.0,
    )
    folder = tmp_path / "stages" / "01-stage-0"
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    losses = {line["step"]: line["eval_loss"] for line in map(json.loads, lines) if "eval_loss" in line}
    state = json.loads((last_checkpoint(folder) / "trainer_state.json").read_text(encoding="utf-8"))
    assert len(losses) == 4 and state["best_global_step"] == min(losses, key=losses.get)
    told = [record.getMessage() for record in caplog.records if "undefined" in record.getMessage()]
    assert told == [
        "The accuracy is undefined on the validation split; until it is defined, the checkpoint with the lowest "
        "validation loss is selected."
    ]
