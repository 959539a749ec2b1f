"""Figures and page of the benchmarks, and the work of each contender. No training and no timing."""

import json
import os
import sys
from pathlib import Path

import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from transformers import AutoConfig, TimmWrapperConfig

from hf_finetune.models.build import build_skeleton
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.stages import build_plan
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import TASKS

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks import child, figures, recipes, render, suite, watch  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.contenders import many_classes  # noqa: E402
from benchmarks.inputs import evenly_spread  # noqa: E402

CURVE = [
    {"elapsed": 2.0, "accuracy": 0.5},
    {"elapsed": 5.0, "accuracy": 0.75},
    {"elapsed": 9.0, "accuracy": 0.7},
]


def test_medians_and_means_skip_missing_values():
    assert figures.median_of([3.0, None, 1.0, 2.0]) == 2.0
    assert figures.mean_of([None, 1.0, 2.0]) == 1.5
    assert figures.median_of([None]) is None
    assert figures.mean_of([]) is None


def test_a_ratio_compares_measurements_of_the_same_round():
    base = [{"round": 0, "seconds": 10.0}, {"round": 1, "seconds": 40.0}, {"round": 2, "seconds": 30.0}]
    other = [{"round": 1, "seconds": 10.0}, {"round": 2, "seconds": 15.0}]
    assert figures.median_ratio(base, other, "seconds") == 3.0
    assert figures.median_ratio(base, [], "seconds") is None
    assert figures.median_ratio(base, [{"round": 0}], "seconds") is None


def test_epochs_last_from_one_evaluation_to_the_next():
    assert figures.epoch_seconds(CURVE) == [2.0, 3.0, 4.0]
    assert figures.later_epoch({"evaluations": CURVE}) == 3.5
    assert figures.later_epoch({"evaluations": CURVE[:1]}) is None
    assert figures.final_accuracy(CURVE) == 0.7
    assert figures.final_accuracy([]) is None


@pytest.mark.parametrize(("accuracy", "seconds"), [(0.4, 2.0), (0.7, 5.0), (0.75, 5.0), (0.76, None)])
def test_the_time_to_reach_an_accuracy_is_that_of_the_first_evaluation_that_shows_it(accuracy, seconds):
    assert figures.time_to_reach(CURVE, accuracy) == seconds


def test_the_watch_counts_from_its_start():
    ticks = iter([100.0, 103.0, 104.0, 107.5, 108.0])
    clock = watch.Watch(now=lambda: next(ticks))
    clock.start()
    clock.evaluated(0.25)
    clock.evaluated(0.5)
    clock.stop()
    result = clock.result()
    peak = result.pop("peak_bytes")
    assert peak == watch.peak_bytes() or 0 < peak <= watch.peak_bytes()
    assert result == {
        "loading_seconds": 3.0,
        "seconds": 5.0,
        "evaluations": [{"elapsed": 1.0, "accuracy": 0.25}, {"elapsed": 4.5, "accuracy": 0.5}],
        "epoch_seconds": [1.0, 3.5],
    }


def test_the_watch_must_be_started():
    with pytest.raises(RuntimeError, match="must be started"):
        watch.Watch().stop()


def test_the_answer_of_a_contender_is_extracted_from_its_output():
    out = f'epoch 1\n{child.MARK}{{"seconds": 1}}\n{child.MARK}{{"seconds": 2}}\nbye\n'
    assert child.find_answer(out) == {"seconds": 2}
    assert child.find_answer("nothing") is None
    assert child.last_lines("a\n\nb = c\n    ^^^\nd\n", 2) == "b = c | d"


def test_a_failing_contender_reports_the_reason():
    with pytest.raises(child.ContenderError, match=r"No module named 'benchmarks\.contenders\.no'"):
        child.run_child("no", {})


@pytest.mark.skipif(os.name == "nt", reason="the interpreter is a shell script")
def test_a_contender_can_have_another_interpreter(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh\necho '{child.MARK}{{"module": "'"$3"'"}}'\n""", encoding="utf-8")
    python.chmod(0o755)
    assert child.run_child("no", {}, python=python) == {"module": "no"}


def test_the_page_can_be_written_again_without_running_anything(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "head.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    assert main(["--only-render", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == render.HEADING + PAGE
    assert capsys.readouterr().out == f"Written: {tmp_path / 'RESULTS.md'}\n"


def test_without_results_no_page_is_written(tmp_path, capsys):
    assert main(["--only-render", "--output", str(tmp_path)]) == 0
    assert list(tmp_path.iterdir()) == []


def test_rows_are_spread_evenly():
    assert evenly_spread(10, 4) == [0, 2, 5, 7]
    assert evenly_spread(3, 9) == [0, 1, 2]


def test_without_names_a_cpu_runs_all_but_the_gpu_benchmark():
    everything = ["head", "recipe", "vit", "sentiment", "scale", "overhead", "classes", "gpu"]
    assert suite.choose([], "cuda") == everything
    assert suite.choose([], "cpu") == everything[:-1]
    assert suite.choose(["gpu", "head"], "cpu") == ["head", "gpu"]


def test_an_unknown_name_is_refused(capsys):
    assert main(["haed"]) == 2
    known = ", ".join(suite.BENCHMARKS)
    expected = f"NAMES must be of {known}. Got 'haed'. Did you mean 'head'?"
    assert capsys.readouterr().err == f"{expected}\n"


class FakeInputs:
    """Returns the names of inputs without making them."""

    def dishes(self, train=None, evaluation=None):
        return f"dishes {train} {evaluation}"

    def reviews(self, train, evaluation):
        return f"reviews {train} {evaluation}"

    def vit(self, architecture, image_size):
        return architecture

    def mini_lm(self):
        return "mini-lm"

    def lite0(self):
        return "lite0"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", suite.BENCHMARKS)
def test_each_contender_has_a_work_description(name, quick):
    made = suite.BENCHMARKS[name].contenders(FakeInputs(), quick, "cpu")
    assert len({(each.group, each.name) for each in made}) == len(made)
    for each in made:
        assert (ROOT / "benchmarks" / "contenders" / f"{each.module}.py").is_file()
        assert json.loads(json.dumps(each.work)).keys() == each.work.keys()


@pytest.mark.parametrize("name", ["head", "recipe", "vit", "sentiment"])
def test_ours_trains_as_long_as_the_others_on_the_same_but_for_the_cached_stages_of_a_recipe(name):
    for group in _groups(suite.BENCHMARKS[name].contenders(FakeInputs(), False, "cpu")):
        works = [each.work for each in group if each.module != "ours"]
        (ours,) = (each.work["recipe"] for each in group if each.module == "ours")
        epochs = [stage["epochs"] for stage in ours["stages"]]
        for work in works:
            theirs = work["epochs"] if "epochs" in work else [stage["epochs"] for stage in work["stages"]]
            times = [4, 3] if name == "recipe" else [1] * len(epochs)
            assert epochs == [factor * count for factor, count in zip(times, theirs, strict=True)]
            assert work["data"] == ours["data"]["path"]
            assert work["checkpoint"] == ours["model"]
            assert {work["batch_size"]} == {stage["batch_size"] for stage in ours["stages"]}
            assert {stage["best"] for stage in ours["stages"]} == {None}
        parse_recipe({**ours, "seed": 0})


def test_the_vit_contenders_train_the_same_parameters():
    config = TimmWrapperConfig(architecture=recipes.VIT["architecture"], model_args={}, num_labels=2)
    model = build_skeleton(config, TASKS["image-classification"])
    stages = parse_recipe({**recipes.vit_recipe(1, "fp32", 224), "model": "m", "data": {"path": "d"}}).stages
    plan = build_plan(read_layout(model), stages, 64).stages[0]
    names = [name for name, _ in model.named_parameters() if name.startswith(tuple(recipes.VIT["prefixes"]))]
    assert sorted(plan.trainable) == sorted(names)


def _groups(contenders):
    groups = {}
    for each in contenders:
        groups.setdefault(each.group, []).append(each)
    return list(groups.values())


def _round(number, seconds, accuracies, **more):
    evaluations = [
        {"elapsed": seconds * (index + 1) / len(accuracies), "accuracy": accuracy}
        for index, accuracy in enumerate(accuracies)
    ]
    return {
        "round": number,
        "seed": number,
        "seconds": seconds,
        "evaluations": evaluations,
        "epoch_seconds": figures.epoch_seconds(evaluations),
        "loading_seconds": 0.5,
        "peak_bytes": 100 * 2**20,
        **more,
    }


MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "gpu": None,
    "versions": {"torch": "2.15.0"},
}
CONTENT = {
    "name": "head",
    "title": "Head stage",
    "about": "The head.",
    "compares_accuracy": True,
    "date": "2026-01-02",
    "repeats": 2,
    "seeds": 2,
    "command": "python -m benchmarks head",
    "machine": MACHINE,
    "groups": [
        {
            "title": "2 epochs",
            "contenders": [
                {
                    "name": "stock",
                    "about": "a Trainer",
                    "rounds": [_round(0, 10.0, [0.5, 0.6]), _round(1, 12.0, [0.5, 0.7])],
                },
                {"name": "fastai", "about": "", "rounds": [], "left_out": "fastai is not installed"},
                {"name": "other", "about": "", "rounds": [], "failed": "It says: no."},
                {
                    "name": "ours",
                    "about": "",
                    "rounds": [_round(0, 2.0, [0.6, 0.8]), _round(1, 4.0, [0.5, 0.65])],
                },
            ],
        }
    ],
}
PAGE = """\

## Head stage

The head.

**2 epochs**

|  | seconds | ratio | seconds per epoch | seconds per epoch (without the first) | ratio (without the first epoch) | \
accuracy | time to the reference's final accuracy | peak MiB | loading, seconds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| stock (a Trainer) | 11.0 | 1.00 | 5.50 | 5.50 | 1.00 | 0.650 (0.600, 0.700) | 11.0 s (1.00 of the reference's time) \
| 100 | 0.5 |
| ours | 3.0 | 4.00 | 1.50 | 1.50 | 4.00 | 0.725 (0.800, 0.650) | 1.0 s (0.10 of the reference's time; 1 of 2 rounds) \
| 100 | 0.5 |

- fastai: left out, fastai is not installed.

- other: failed. It says: no.

2026-01-02, rounds: 2, seeds: 2: `python -m benchmarks head`\x20\x20
A processor, 2 cores, 8 GiB; torch 2.15.0.
"""


def test_the_page_is_rendered_from_the_raw_numbers(tmp_path):
    assert render.render([CONTENT]) == render.HEADING + PAGE
    (tmp_path / "head.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    assert render.render_folder(tmp_path) == render.HEADING + PAGE


def test_an_uninformative_accuracy_is_not_shown():
    page = render.render([{**CONTENT, "compares_accuracy": False}])
    assert "accuracy" not in page.removeprefix(render.HEADING)
    assert "| stock (a Trainer) | 11.0 | 1.00 | 5.50 | 5.50 | 1.00 | 100 | 0.5 |" in page


def test_memory_is_that_above_the_uncached_process_and_speed_that_of_the_card():
    rounds = [
        {"round": 0, "seed": 0, "cached": False, "example_seconds": 1e-3, "peak_bytes": 100 * 2**20},
        {"round": 0, "seed": 0, "cached": True, "example_seconds": 1e-4, "peak_bytes": 150 * 2**20},
        {"round": 0, "seed": 0, "step_seconds": 0.1, "flops": 4e14, "matrix_flops": 8e14},
    ]
    cells = {title: [cell(rounds[:1], [each]) for each in rounds] for title, cell in render.COLUMNS.items()}
    assert cells["MiB above uncached"] == ["0", "50", None]
    assert cells["µs per example"] == ["1000.0", "100.0", None]
    assert cells["share of the matrix rate"] == [None, None, "50.0 %"]
    assert cells["TFLOP/s"] == [None, None, "400.0"]


@pytest.mark.parametrize("what", ["evaluation", "prediction"])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_many_classes_are_timed_next_to_the_forward_pass(
    tmp_path, modality, what, timm_checkpoint, bert_checkpoint
):
    (tmp_path / "data").mkdir()
    if modality == "text":
        rows = [{"text": "a good film"}, {"text": "a bad film"}] * 4
        Dataset.from_list(rows).to_csv(str(tmp_path / "data" / "train.csv"), index=False)
    else:
        pictures = [{"image": Image.new("RGB", (40, 30), (20 * each, 0, 0))} for each in range(8)]
        Dataset.from_list(pictures, Features({"image": ImageFeature()})).to_parquet(
            str(tmp_path / "data" / "train.parquet")
        )
    checkpoint = bert_checkpoint if modality == "text" else timm_checkpoint
    work = {
        **{"modality": modality, "checkpoint": str(checkpoint), "data": str(tmp_path / "data"), "what": what},
        **{
            "classes": 250,
            "examples": 10,
            "image_size": 48,
            "repeats": 1,
            "seed": 0,
            "folder": str(tmp_path),
        },
    }
    found = many_classes.measure(work)
    assert min(found.values()) > 0 and set(found) == {"forward_seconds", "seconds", "peak_bytes"}
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert config.num_labels == 250
    assert modality == "text" or config.pretrained_cfg["input_size"] == [3, 48, 48]
