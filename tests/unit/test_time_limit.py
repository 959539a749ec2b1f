"""Time limit: durations, shares of the stages, steps that fit, the clock of a run, and the end of a stage in time."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from stage_helpers import Examples, collate, state_of
from transformers import TrainerCallback

from hf_finetune.errors import InputError
from hf_finetune.fields.durations import format_duration, parse_duration
from hf_finetune.methods import StageContext, build_methods
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.stages import PlannedStage, build_plan
from hf_finetune.planning.time_limit import StageTimes, limit_steps, stage_share, steps_that_fit
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.clock import RunClock
from hf_finetune.runs.cross_validation import recipe_of_fold
from hf_finetune.runs.run_costs import RunCosts
from hf_finetune.runs.time_limit import RunLimit
from hf_finetune.training.rehearsal import first_steps, rehearse, sample_validation
from hf_finetune.training.stage import train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_limit import StageLimit

TIMES = StageTimes(start=2.0, step=1.0, evaluation=3.0, end=1.0)
RECIPE = {
    "task": "text-classification",
    "model": "bert",
    "data": "reviews.csv",
    "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
}


@pytest.mark.parametrize(
    ("value", "seconds", "text"),
    [
        ("90s", 90, "1m30s"),
        ("20m", 1200, "20m"),
        ("1h30m", 5400, "1h30m"),
        ("2d", 172_800, "2d"),
        ("0.5 h", 1800, "30m"),
        (" 1H 5S ", 3605, "1h5s"),
        (90, 90, "1m30s"),
        (0.25, 0.25, "0.25s"),
    ],
)
def test_a_duration_is_text_with_units_or_a_number_of_seconds(value, seconds, text):
    assert parse_duration(value) == seconds
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds
    recipe = parse_recipe({**RECIPE, "limit": {"time": value}})
    assert (recipe.limit.time, recipe.limit.seconds) == (text, seconds)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))).limit == recipe.limit


@pytest.mark.parametrize("value", ["", "20", "m20", "30m1h", "-5s", "0s", "soon", 0, -1, True, [5]])
def test_other_values_are_no_duration(value):
    with pytest.raises(InputError) as caught:
        parse_recipe({**RECIPE, "limit": {"time": value}})
    assert str(caught.value) == (
        "limit.time must be a duration above 0, with units d, h, m, s, or a number of seconds. "
        f"Got {value!r}. For example 90s, 20m, 1h30m."
    )


def test_the_limit_can_be_written_as_its_time():
    assert parse_recipe({**RECIPE, "limit": "20m"}).limit.seconds == 1200
    assert parse_recipe(RECIPE).limit is None


@pytest.mark.parametrize(
    ("seconds", "costs", "share"),
    [
        (300, [10, 20, 70], 30),  # enough for all: in proportion
        (60, [10, 200], 10),  # the cheap stage is not cut
        (60, [200, 10], 50),  # the expensive one gets the rest
        (60, [100, 200, 300], 20),  # all are cut: equal parts
        (60, [25, 10, 100], 25),
        (60, [100], 60),
        (-5, [10, 20], -2.5),
        (60, [0, 0], 30),
    ],
)
def test_shares_of_the_stages(seconds, costs, share):
    assert stage_share(seconds, costs) == share


def test_the_steps_that_fit_leave_time_for_each_evaluation():
    """Of 97 of 100 seconds 3 are for start and end; an epoch of 10 steps with its evaluation takes 13."""
    assert steps_that_fit(100, TIMES, 10) == 7 * 10
    assert steps_that_fit(106, TIMES, 10) == 7 * 10 + 5
    assert steps_that_fit(100, TIMES, 1000) == 91
    assert steps_that_fit(-3, TIMES, 10) == 1


def a_stage(model, **changes):
    fields = {"train": "all", "name": "all", "lr": 0.01, "batch_size": 4, **changes}
    spec = StageSpec(**fields)
    return PlannedStage(spec, build_plan(read_layout(model), [spec], 24).stages[0], 3)


@pytest.mark.parametrize(("warmup", "expected"), [(0, 0), (6, 3), (0.25, 2), (1, 1)])
def test_a_stage_is_laid_out_for_fewer_steps(tiny_model, warmup, expected):
    stage = limit_steps(a_stage(tiny_model("bert"), epochs=2.0, warmup=warmup), 5, 6)
    assert (stage.spec.epochs, stage.spec.max_steps) == (None, 5)
    assert (stage.plan.steps, stage.plan.epochs, stage.plan.warmup_steps) == (5, 5 / 6, expected)


def test_time_that_a_stage_does_not_need_goes_to_the_later_ones(tmp_path):
    now = SimpleNamespace(seconds=100.0)
    clock = RunClock(tmp_path, now=lambda: now.seconds)
    limit = RunLimit(70.0, clock, RunCosts((40.0, 20.0, 80.0), (1.0, 1.0, 1.0), finish=6.0, probe=4.0))
    first = limit.stage(0, list)
    assert first.left() == 20.0  # 60 seconds for three stages
    now.seconds += 5
    assert first.left() == 15.0
    assert limit.stage(1, list).left() == 20.0
    now.seconds += 35  # it took longer
    assert limit.stage(2, list).left() == 20.0
    assert limit.stage(-1, list).left() == 0.0  # a pretraining without costs


def test_slow_evaluations_leave_less_time_for_the_stage(tmp_path):
    """That of the finished model is then expected to take as much longer."""
    clock = RunClock(tmp_path, now=lambda: 100.0)
    limit = RunLimit(70.0, clock, RunCosts((40.0,), (1.0,), finish=20.0, prediction=16.0, evaluation=2.0))
    stage = limit.stage(0, list)
    assert stage.left() == 50.0
    for evaluation, left in ((1.0, 50.0), (3.0, 42.0)):
        stage.times = StageTimes(0.0, 1.0, evaluation, 0.0)
        assert stage.left() == left


def test_the_clock_counts_earlier_attempts_but_not_the_time_between_them(tmp_path):
    now = SimpleNamespace(seconds=0.0)
    clock = RunClock(tmp_path, started=-3.0, now=lambda: now.seconds)
    control = SimpleNamespace()
    for seconds in (0.5, 1.2, 1.9):
        now.seconds = seconds
        clock.on_step_end(None, None, control)
    assert json.loads((tmp_path / "time.json").read_text()) == {"seconds": 4.9}  # the attempt began at -3
    now.seconds = 100.0
    clock = RunClock(tmp_path, now=lambda: now.seconds)
    now.seconds = 102.0
    assert clock.spent() == pytest.approx(6.9)
    clock.save()
    assert RunClock(tmp_path, now=lambda: now.seconds).earlier == 6.9
    (tmp_path / "time.json").write_text("{")
    assert RunClock(tmp_path).earlier == 0.0


def test_the_trainings_of_a_cross_validation_have_equal_parts():
    recipe = parse_recipe({**RECIPE, "limit": "1m", "evaluation": {"folds": 3}})
    assert recipe_of_fold(recipe, 2, 3).limit.time == "15s"


class Watch(TrainerCallback):
    """Record the learning rate of each step, and advance a clock by a second."""

    def __init__(self, clock):
        self.clock, self.rates, self.evaluated = clock, [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args, state, control, **kwargs):
        self.clock.seconds += 1.0

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated.append(state.global_step)


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def train(model, folder, left=None, clock=None, *, resume=False, **changes):
    """Train a stage of 24 examples, and return its result, its record and the weights."""
    stage = a_stage(model, **changes)
    context = StageContext(stage, model, best_metric="accuracy", greater_is_better=True)
    watch = Watch(clock or SimpleNamespace(seconds=0.0))

    def build(model):
        return build_methods(StageContext(stage, model, best_metric="accuracy", greater_is_better=True))

    result = train_stage(
        model,
        stage,
        StageData("single_label", Examples(model, 24), collate, Examples(model, 8)),
        output=StageOutput(folder, resume),
        evaluation=StageEvaluation(4, accuracy, "accuracy", greater_is_better=True),
        execution=ExecutionSettings(SpeedSpec(), limit=StageLimit(left, build) if left is not None else None),
        methods=build_methods(context),
        callbacks=[watch],
    )
    return result, watch, state_of(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("timm/test_resnet", {"epochs": 2.0}),
        ("bert", {"epochs": 2.0, "schedule": "cosine", "warmup": 0.2, "early_stopping": 3}),
        ("bert", {"max_steps": 9, "regularize": {"ema": 0.9, "gradient_noise": 0.01}}),
        ("timm/test_resnet", {"epochs": 1.5, "regularize": {"mixup": 0.4, "cutmix": 1.0}}),
        ("bert", {"epochs": 1.0, "regularize": {"r_drop": 1.0}, "best": None}),
    ],
)
def test_a_stage_that_fits_ends_as_without_a_limit(tmp_path, tiny_model, name, changes):
    """The rehearsal leaves no trace: neither in weights and buffers, nor in the random state."""
    free, free_watch, expected = train(tiny_model(name), tmp_path / "free", **changes)
    limited, watch, weights = train(tiny_model(name), tmp_path / "limited", lambda: 1e6, **changes)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert weights.keys() == expected.keys()
    assert (watch.rates, watch.evaluated) == (free_watch.rates, free_watch.evaluated)
    assert (limited.limit, limited.steps, limited.validation) == (None, free.steps, free.validation)
    assert sorted(path.name for path in (tmp_path / "limited").iterdir()) == sorted(
        ["limit.json", *(path.name for path in (tmp_path / "free").iterdir())]
    )


@pytest.fixture
def measured(monkeypatch):
    """Replace the measurement by ``TIMES``; return the number of rehearsals."""
    calls = []

    def rehearse(train, folder, seconds, evaluations):
        calls.append(seconds)
        return TIMES

    monkeypatch.setattr("hf_finetune.training.stage.rehearse", rehearse)
    return calls


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_schedule_of_a_cut_stage_ends_at_its_last_step(tmp_path, tiny_model, measured, schedule):
    """Of 20 seconds 19.4 are planned: 3 for start and end, an epoch of 9, and 4 steps with an evaluation."""
    changes = {"epochs": 5.0, "schedule": schedule, "warmup": 6}
    result, watch, weights = train(tiny_model("bert"), tmp_path / "cut", lambda: 20.0, **changes)
    assert (result.steps, result.limit) == (
        10,
        {"planned_steps": 30, "fitting_steps": 10, "stopped": False},
    )
    assert watch.evaluated == [0, 6, 10]
    changes = {"max_steps": 10, "schedule": schedule, "warmup": 2}
    _, other, expected = train(tiny_model("bert"), tmp_path / "short", **changes)
    assert watch.rates == other.rates
    assert watch.rates[-1] < 0.2 * max(watch.rates)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert measured == [0.03 * 20.0]


def test_a_slower_stage_ends_after_the_evaluation_for_which_the_time_suffices(tmp_path, tiny_model, measured):
    clock = SimpleNamespace(seconds=0.0)
    end = 40.0

    def left():
        return end - clock.seconds

    result, watch, _ = train(tiny_model("bert"), tmp_path, left, clock, epochs=3.0)
    assert (result.steps, result.limit) == (
        18,
        None,
    )  # 18 seconds of steps; the evaluations take no time here
    clock.seconds, end = 0.0, 12.0
    result, watch, _ = train(tiny_model("bert"), tmp_path / "late", left, clock, epochs=3.0)
    assert result.limit == {"planned_steps": 18, "fitting_steps": 5, "stopped": False}
    clock.seconds = -30.0  # the plan has all 18 steps, but then 30 seconds are lost

    def left_after_a_loss():
        return 12.0 - clock.seconds - (28.0 if clock.seconds > -28 else 0.0)

    result, watch, _ = train(tiny_model("bert"), tmp_path / "lost", left_after_a_loss, clock, epochs=3.0)
    assert result.limit == {"planned_steps": 18, "fitting_steps": 18, "stopped": True}
    assert result.steps == watch.evaluated[-1] < 18
    assert result.best_step in watch.evaluated


def test_a_resumed_stage_has_the_recorded_number_of_steps(tmp_path, tiny_model, measured, monkeypatch):
    straight, _, expected = train(tiny_model("bert"), tmp_path / "straight", lambda: 20.0, epochs=5.0)

    def fail_at(step):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

        return on_step_begin

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Watch, "on_step_begin", fail_at(8))
        train(tiny_model("bert"), tmp_path / "run", lambda: 20.0, epochs=5.0)
    rehearsals = len(measured)
    result, watch, weights = train(
        tiny_model("bert"), tmp_path / "run", lambda: 1000.0, epochs=5.0, resume=True
    )
    assert len(measured) == rehearsals
    assert (result.steps, len(watch.rates), result.limit) == (10, 4, straight.limit)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_a_stage_that_is_resumed_after_its_end_takes_no_step(tmp_path, tiny_model, measured, monkeypatch):
    def stop(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Watch, "on_save", stop)
        train(tiny_model("bert"), tmp_path / "run", lambda: 20.0, epochs=5.0)
    result, watch, _ = train(tiny_model("bert"), tmp_path / "run", lambda: 1.0, epochs=5.0, resume=True)
    assert (watch.rates, result.steps) == ([], 6)
    assert result.limit == {"planned_steps": 30, "fitting_steps": 10, "stopped": True}


def test_a_rehearsal_measures_steps_and_scales_its_evaluation(tmp_path):
    """The first step, which takes longer, counts as a part of the start."""
    now = SimpleNamespace(seconds=100.0)
    args, control = SimpleNamespace(world_size=1), SimpleNamespace(should_training_stop=False)

    def train(folder, timer):
        now.seconds = 101.0
        timer.on_train_begin(args, None, control)
        for seconds in (105.0, 106.0, 106.5):
            now.seconds = seconds
            timer.on_step_end(args, None, control)
        assert not control.should_training_stop  # four steps at least
        now.seconds = 107.0
        timer.on_step_end(args, None, control)
        assert control.should_training_stop
        timer.on_epoch_end(args, None, control)
        now.seconds = 108.0
        timer.on_evaluate(args, None, control)
        now.seconds = 108.5
        timer.on_save(args, None, control)
        now.seconds = 110.0

    step = pytest.approx(2 / 3)
    times = rehearse(train, tmp_path, 3.0, 4.0, now=lambda: now.seconds)
    assert (times.step, times.evaluation, times.end) == (step, 4.5, 1.5)
    assert times.start == pytest.approx(1.0 + 4.0 - 2 / 3 + 4.5)
    now.seconds = 100.0
    control.should_training_stop = False
    assert rehearse(train, tmp_path, 3.0, 0.0, now=lambda: now.seconds).start == pytest.approx(5.0 - 2 / 3)


def test_a_rehearsal_evaluates_a_part_of_the_validation_split(tiny_model):
    model = tiny_model("bert")
    data = StageData("single_label", Examples(model, 24), collate, Examples(model, 90))
    settings = StageEvaluation(16, accuracy, "accuracy", greater_is_better=True)
    sample, evaluation = sample_validation(data, settings)
    assert (len(sample.validation), sample.train) == (64, data.train)
    assert (evaluation.compute_metrics(None), evaluation.at_start) == ({"accuracy": 0.0}, False)
    sample, _ = sample_validation(StageData("single_label", data.train, collate), settings)
    assert sample.validation is None


@pytest.mark.parametrize(("epochs", "steps"), [(2.0, 4), (40.0, 12), (1000.0, 50)])
def test_a_rehearsal_takes_few_of_the_steps(tiny_model, epochs, steps):
    stage = first_steps(a_stage(tiny_model("bert"), epochs=epochs, warmup=0.5, early_stopping=2))
    assert (stage.spec.max_steps, stage.spec.epochs, stage.spec.early_stopping) == (steps, None, None)
    assert stage.plan.warmup_steps == 0
