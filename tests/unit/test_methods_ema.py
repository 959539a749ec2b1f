"""The exponential moving average of weights: by hand, against torch's, and the choice between both."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from stage_helpers import Examples, differing, state_of, train_stages
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from hf_finetune.methods.ema import AVERAGE_FILE, AveragedWeights, decay_at, update_average
from hf_finetune.training.stage_weights import load_weights


def test_the_first_steps_leave_less_of_the_average():
    """TensorFlow: min(decay, (1 + step) / (10 + step))."""
    assert [decay_at(0.9, step) for step in (0, 8, 89, 1000)] == pytest.approx([0.1, 0.5, 0.9, 0.9])


def test_the_average_is_torchs():
    model = nn.Linear(4, 3)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    theirs.update_parameters(model)  # the first update copies the weights
    ours = {name: value.detach().clone() for name, value in model.named_parameters()}
    for _ in range(5):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value))
        theirs.update_parameters(model)
        update_average(ours, dict(model.named_parameters()), 0.8)
    for name, value in theirs.module.named_parameters():
        torch.testing.assert_close(ours[name], value)


class Steps(TrainerCallback):
    """Record the model's state when training begins and after each step."""

    def __init__(self):
        self.states = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.states.append(state_of(kwargs["model"]))

    def on_step_end(self, args, state, control, **kwargs):
        self.states.append(state_of(kwargs["model"]))


def parameters_only(original, plan):
    """The parameters only."""
    return list(plan.trainable)


@pytest.mark.defends(
    "hf_finetune.methods.ema:_averaged_names",
    why="The averaged weights have their own BatchNorm statistics",
    by=parameters_only,
    ids=["timm/test_resnet"],
)
@pytest.mark.parametrize("name", ["bert", "timm/test_resnet"])
def test_without_validation_the_average_is_kept_and_frozen_weights_are_unchanged(tmp_path, tiny_model, name):
    model, steps = tiny_model(name), Steps()
    (plan,), (watch,) = train_stages(
        model, tmp_path, ["last:1"], callbacks=[steps], regularize={"ema": 0.5}, max_steps=5
    )
    norms = [norm for norm, _ in plan.layout.batch_norms if norm not in plan.frozen_batch_norms]
    averaged = {
        *plan.trainable,
        *(f"{norm}.running_{which}" for norm in norms for which in ("mean", "var")),
    }
    expected = dict(steps.states[0])
    for step, state in enumerate(steps.states[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        for each in averaged:
            expected[each] = decay * expected[each] + (1 - decay) * state[each]
    for each in averaged:
        torch.testing.assert_close(
            watch.after[each], expected[each], msg=lambda text, each=each: f"{each}: {text}"
        )
    counters = {f"{norm}.num_batches_tracked" for norm in norms}
    assert differing(watch.before, watch.after) == averaged | counters
    assert any(not torch.equal(watch.after[each], steps.states[-1][each]) for each in averaged)
    saved = tmp_path / "stages" / "01-stage-0"
    assert (
        differing(load_file(saved / "checkpoint-5" / AVERAGE_FILE), {e: watch.after[e] for e in averaged})
        == set()
    )
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    load_weights(model, saved / "model.safetensors")
    assert differing(state_of(model), watch.after) == set()


def metrics_of(found):
    return EvalLoopOutput(predictions=None, label_ids=None, metrics=found, num_samples=1)


@pytest.fixture
def averaging():
    """Return the average of one weight, which is 2 if the weight is 1, and the model."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)

    def make(metric="accuracy", greater=True):
        average = AveragedWeights(["weight"], 0.5, metric, greater)
        average.on_train_begin(None, None, None, model=model)
        average.average["weight"].fill_(2.0)
        return average, model

    return make


def keep_average(original, self):
    """The averaged weights stay in the model."""
    with torch.no_grad():
        for name, place in self.raw_tensors.items():
            place.copy_(self.average[name])
    return nullcontext()


@pytest.mark.defends(
    "hf_finetune.methods.ema:AveragedWeights.average_applied", by=keep_average, ids=["True-0.5-0.75-True"]
)
@pytest.mark.parametrize(
    ("greater", "raw", "averaged", "kept"),
    [(True, 0.5, 0.75, True), (True, 0.75, 0.5, False), (True, 0.5, 0.5, False), (False, 0.5, 0.25, True)],
)
def test_the_better_of_both_by_the_stages_metric_is_reported(averaging, greater, raw, averaged, kept):
    average, model = averaging(greater=greater)
    values = {1.0: raw, 2.0: averaged}

    def evaluation():
        return metrics_of({"eval_accuracy": values[model.weight.item()], "eval_weight": model.weight.item()})

    found = average.evaluate(evaluation).metrics
    assert model.weight.item() == 1.0
    assert found == {
        "eval_accuracy": averaged if kept else raw,
        "eval_weight": 2.0 if kept else 1.0,
        "raw_accuracy": raw,
        "average_accuracy": averaged,
        "averaged": kept,
    }


@pytest.mark.parametrize(("loss", "kept"), [(0.9, True), (1.0, False), (1.1, False)])
def test_where_the_metric_is_equal_the_loss_decides(averaging, loss, kept):
    average, _ = averaging(metric="accuracy")
    found = iter([{"eval_accuracy": 0.5, "eval_loss": 1.0}, {"eval_accuracy": 0.5, "eval_loss": loss}])
    assert average.evaluate(lambda: metrics_of(next(found))).metrics["averaged"] is kept


def test_where_no_metric_chooses_the_average_alone_is_evaluated(averaging):
    average, model = averaging(metric=None)
    found = average.evaluate(lambda: metrics_of({"eval_loss": model.weight.item()})).metrics
    assert found == {"eval_loss": 2.0, "averaged": True} and model.weight.item() == 1.0


def test_an_evaluation_that_fails_leaves_the_weights(averaging):
    average, model = averaging()
    with pytest.raises(OSError, match="disk"), average.average_applied():
        raise OSError("disk")
    assert model.weight.item() == 1.0


def test_a_step_that_the_scaler_left_out_is_not_averaged(averaging):
    average, _ = averaging()
    state = SimpleNamespace(global_step=100)
    average.on_step_end(None, state, None, optimizer=SimpleNamespace(step_was_skipped=True))
    assert average.average["weight"].item() == 2.0
    average.on_step_end(None, state, None, optimizer=SimpleNamespace(step_was_skipped=False))
    assert average.average["weight"].item() == 1.5


class Scores:
    """Metrics with given values, evaluation by evaluation: of the weights, of their average, ..."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, prediction):
        return {"accuracy": self.values.pop(0)}


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.evaluation_loop",
    why="The averaged weights are evaluated in addition to the trained weights",
    ids=["scores0-2-True"],
)
@pytest.mark.defends(
    "hf_finetune.methods.ema:AveragedWeights.average_applied",
    why="An evaluation of the averaged weights leaves the trained weights unchanged",
    by=keep_average,
    ids=["scores1-4-False"],
)
@pytest.mark.parametrize(
    ("scores", "step", "kept"),
    [((0.5, 0.6, 0.4, 0.5), 2, True), ((0.5, 0.4, 0.6, 0.4), 4, False), ((0.5, 0.4, 0.4, 0.8), 4, True)],
)
def test_the_best_score_survives_a_resume(tmp_path, tiny_model, scores, step, kept):
    model, steps = tiny_model("bert"), Steps()
    train_stages(
        model,
        tmp_path,
        ["all"],
        callbacks=[steps],
        validation=Examples(model, 4),
        compute_metrics=Scores(0.0, *scores),  # the first one is of the initial weights
        best_metric="accuracy",
        epochs=2.0,
        regularize={"ema": 0.5},
    )
    checkpoint = tmp_path / "stages" / "01-stage-0" / f"checkpoint-{step}"
    average, raw = load_file(checkpoint / AVERAGE_FILE), load_file(checkpoint / "model.safetensors")
    after = state_of(model)
    assert all(torch.equal(after[name], (average if kept else raw)[name]) for name in average)
    assert any(not torch.equal(average[name], raw[name]) for name in average)
    assert all(torch.equal(steps.states[step][name], raw[name]) for name in average)
