"""Domain adaptation in whole runs: trained parameters of each method, resuming, and errors."""

import json
import shutil
from functools import partial

import pytest
import torch
from PIL import Image
from run_helpers import (
    Record,
    Stop,
    changed,
    log_of,
    quick_run,
    refusal,
    tiny_image_recipe,
    tiny_text_recipe,
    weights_of,
    with_stages,
)
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_finetune.distributed import start_processes
from hf_finetune.publishing.portable_recipe import portable_recipe
from hf_finetune.recipe.load import parse_recipe, resolve_paths
from hf_finetune.runs.estimates import describe_prefix_caches
from hf_finetune.runs.prepare import plan_stages, prepare_run

METHODS = {
    "coral": {"method": "coral", "weight": 5.0},
    "dann": {"method": "dann"},
    "continue_pretraining": {
        "method": "continue_pretraining",
        "epochs": 2.0,
        "batch_size": 4,
        "lr": 1e-3,
        "source": True,
    },
}
PRETRAINING = "00-pretraining"


@pytest.fixture(scope="session")
def targets(tmp_path_factory):
    """Return a folder of ten unlabelled images, and a csv of 13 texts with labels that are not read."""
    folder = tmp_path_factory.mktemp("targets")
    (folder / "images").mkdir()
    for index in range(10):
        Image.new("RGB", (40, 40), (20 * index, 255 - 20 * index, 90)).save(
            folder / "images" / f"{index}.png"
        )
    lines = ["text,label", *(f"the plot {'fine ' * (index % 4)}{index},{index}" for index in range(13))]
    (folder / "texts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"image": str(folder / "images"), "text": str(folder / "texts.csv")}


@pytest.fixture(scope="session")
def adapted(targets, squares, reviews, timm_checkpoint, bert_checkpoint):
    """Return a function that makes a tiny recipe for images or texts with a method."""

    def make(kind, method, **changes):
        tiny = partial(tiny_image_recipe, squares, timm_checkpoint)
        if kind == "text":
            tiny = partial(tiny_text_recipe, reviews, bert_checkpoint)
        fields = METHODS[method] if method else {}
        domain = {**fields, "target": targets[kind]} if method else None
        recipe = tiny(**{"domain_adaptation": domain, "evaluation": {"linear_probe": None}, **changes})
        return with_stages(recipe, *[{"best": None}] * 2)  # any change must be visible

    return make


@pytest.fixture(scope="session")
def runs(tmp_path_factory, adapted):
    """Return the finished run of each modality and method, run once, and the record of a callback."""
    made = {}

    def get(kind, method):
        if (kind, method) not in made:
            folder, record = tmp_path_factory.mktemp("adapted") / "run", Record()
            result = quick_run(adapted(kind, method), folder, callbacks=[record])
            made[kind, method] = (folder, result, record)
        return made[kind, method]

    return get


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("method", ["coral", "dann"])
def test_domain_alignment_changes_the_planned_parameters_and_has_no_effect_on_a_head_stage(
    runs, adapted, kind, method
):
    folder, result, record = runs(kind, method)
    without = runs(kind, None)[0]
    first = [each / "stages" / "01-head" / "model.safetensors" for each in (folder, without)]
    assert first[0].read_bytes() == first[1].read_bytes()
    assert changed(weights_of(folder), weights_of(without))
    stages = plan_stages(adapted(kind, method)).plan.stages
    for plan, before, after in zip(stages, record.before, record.after, strict=True):
        buffers = {name for name in before if "running_" in name or "num_batches" in name}
        frozen = {name for name in buffers if name.rpartition(".")[0] in plan.frozen_batch_norms}
        moved = changed(before, after)
        assert moved <= {*plan.trainable, *(buffers - frozen)} and moved & set(plan.trainable)
    losses = [entry["domain_loss"] for entry in log_of(folder, "02-all") if "loss" in entry]
    assert len(losses) == plan_stages(adapted(kind, method)).plan.stages[1].steps and min(losses) > 0.0
    assert not any("domain_loss" in entry for entry in log_of(folder, "01-head"))
    reasons = [stage["prefix_cache"]["reason"] for stage in result.metrics["stages"]]
    assert (
        reasons[1]
        == {
            "image": "domain alignment also needs inputs of the target domain",
            "text": "no layer is frozen",
        }[kind]
    )


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_pretraining_is_a_stage_of_its_own_and_the_first_one_begins_with_its_backbone(runs, kind):
    folder, result, record = runs(kind, "continue_pretraining")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["pretraining"]["state"] == "done"
    assert manifest["pretraining"]["result"] == result.metrics["pretraining"]
    found = result.metrics["pretraining"]
    examples = {"image": 34, "text": 41}[kind]
    assert (found["name"], found["examples"], found["epochs"]) == ("pretraining", examples, 2.0)
    assert found["steps"] == 2 * -(-examples // 4)
    assert [stage["name"] for stage in result.metrics["stages"]] == ["head", "all"]
    losses = [entry["loss"] for entry in log_of(folder, PRETRAINING) if "loss" in entry]
    assert len(losses) == found["steps"] and losses[-1] < losses[0]
    backbone = load_file(folder / "stages" / PRETRAINING / "backbone.safetensors")
    first, plain = record.before[1], runs(kind, None)[2].before[0]
    assert len(record.before) == 3
    same = {name for name in first if torch.equal(first[name], plain[name])}
    assert all(torch.equal(first[name], value) for name, value in backbone.items())
    assert len(backbone) > 10 and same.isdisjoint(
        name for name, value in backbone.items() if value.is_floating_point() and value.ndim > 1
    )
    assert {name for name in first if name not in backbone} <= same  # the head is newly initialized


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("method", METHODS)
def test_the_saved_model_is_plain_and_contains_no_domain_classifier(runs, kind, method):
    folder = runs(kind, method)[0] / "model"
    auto = AutoModelForImageClassification if kind == "image" else AutoModelForSequenceClassification
    _, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not any(folder.glob("*.py"))
    assert load_file(folder / "model.safetensors").keys() == weights_of(runs(kind, None)[0]).keys()


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize(
    ("method", "stops"),
    [
        ("coral", [Stop("all", 3, "ctrl-c")]),
        ("dann", [Stop("head", 2, "ctrl-c"), Stop("all", 3, "ctrl-c"), Stop("all", 5, "begin")]),
        (
            "continue_pretraining",
            [
                Stop("pretraining", 2, "begin"),
                Stop("pretraining", 5, "ctrl-c"),
                Stop("pretraining", 12, "ctrl-c"),
                Stop("head", 3, "ctrl-c"),
                Stop("all", 2, "ctrl-c"),
            ],
        ),
    ],
)
def test_a_run_that_is_interrupted_ends_the_same_bit_for_bit(tmp_path, runs, adapted, kind, method, stops):
    whole = runs(kind, method)[0]
    for index, stop in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            quick_run(adapted(kind, method), tmp_path / "run", resume=index > 0, callbacks=[stop])
    quick_run(adapted(kind, method), tmp_path / "run", resume=True)
    assert changed(weights_of(whole), weights_of(tmp_path / "run")) == set()
    for stage in ([PRETRAINING] if method == "continue_pretraining" else []) + ["01-head", "02-all"]:
        assert log_of(whole, stage) == log_of(tmp_path / "run", stage)


def test_a_checkpoint_of_dann_contains_the_state_of_the_domain_classifier(runs):
    stages = runs("text", "dann")[0] / "stages"
    assert all((each / "domain.pt").is_file() for each in stages.glob("02-all/checkpoint-*"))
    assert not list(stages.glob("01-head/checkpoint-*/domain.pt"))
    seal = json.loads(next(stages.glob("02-all/checkpoint-*/whole.json")).read_text(encoding="utf-8"))
    assert "domain.pt" in seal["files"]


def test_a_run_resumes_only_with_the_same_target_inputs_and_method(tmp_path, adapted, targets):
    recipe = adapted("text", "continue_pretraining")
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "run", callbacks=[Stop("pretraining", 3, "ctrl-c")])
    text = (tmp_path / "other.csv").write_text("text\nthe film\na plot\n", encoding="utf-8")
    assert text
    content = recipe.model_dump(mode="json")
    content["domain_adaptation"]["target"] = str(tmp_path / "other.csv")
    other = parse_recipe(content)
    told = refusal(lambda: quick_run(other, tmp_path / "run", resume=True))
    assert "The data has changed since the run started" in told
    told = refusal(lambda: quick_run(other, tmp_path / "run", resume=True, allow_changes=True))
    assert told == ("domain_adaptation must not change after the pretraining has started. Start a new run.")
    assert (
        refusal(lambda: quick_run(adapted("text", "dann"), tmp_path / "run", resume=True, allow_changes=True))
        == told
    )
    content = recipe.model_dump(mode="json") | {"seed": 4}
    told = refusal(
        lambda: quick_run(parse_recipe(content), tmp_path / "run", resume=True, allow_changes=True)
    )
    assert "The data must not change until the pretraining is finished. Start a new run." in told


def test_pretraining_cannot_be_added_after_a_stage_has_begun(tmp_path, adapted):
    with pytest.raises(KeyboardInterrupt):
        quick_run(adapted("text", None), tmp_path / "run", callbacks=[Stop("head", 2, "ctrl-c")])
    recipe = adapted("text", "continue_pretraining")
    told = refusal(lambda: quick_run(recipe, tmp_path / "run", resume=True, allow_changes=True))
    assert told == (
        "domain_adaptation.method must not be continue_pretraining after the first stage has started. Start "
        "a new run."
    )


def test_a_stage_resumes_with_the_same_inputs_at_another_path(tmp_path, runs, adapted, targets):
    recipe = adapted("text", "coral")
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "run", callbacks=[Stop("all", 3, "ctrl-c")])
    content = recipe.model_dump(mode="json")
    content["domain_adaptation"]["target"] = str(shutil.copy(targets["text"], tmp_path / "moved.csv"))
    quick_run(parse_recipe(content), tmp_path / "run", resume=True, allow_changes=True)
    changes = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["changes"]
    assert not changes[0]["anew"] and not changes[0]["data"]
    assert changed(weights_of(runs("text", "coral")[0]), weights_of(tmp_path / "run")) == set()


def test_a_stage_restarts_with_another_weight(tmp_path, adapted):
    recipe = adapted("text", "coral")
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "run", callbacks=[Stop("all", 3, "ctrl-c")])
    content = recipe.model_dump(mode="json")
    content["domain_adaptation"]["weight"] = 9.0
    quick_run(parse_recipe(content), tmp_path / "run", resume=True, allow_changes=True)
    changes = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["changes"]
    assert changes[0]["recipe"] == {"domain_adaptation.weight": [5.0, 9.0]} and changes[0]["anew"]


@pytest.mark.parametrize("method", ["dann", "continue_pretraining"])
def test_each_fold_of_a_cross_validation_has_domain_adaptation(tmp_path, adapted, method):
    quick_run(adapted("text", method, evaluation={"folds": 2, "linear_probe": None}), tmp_path / "run")
    for fold in ("1-of-2", "2-of-2"):
        folder = tmp_path / "run" / "folds" / fold
        if method == "dann":
            assert "domain_loss" in next(entry for entry in log_of(folder, "02-all") if "loss" in entry)
        else:
            assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["pretraining"]


def test_the_plan_describes_the_domain_adaptation(adapted, targets):
    report = plan_stages(adapted("image", "coral"))
    assert report.notes[-2:] == (
        "Stage head has no domain alignment: it trains only the head.",
        f"Stage all aligns the head's input with the 10 inputs of {targets['image']}: coral, weight 5.",
    )
    assert describe_prefix_caches(report)[1] == (
        "prefix cache: not used (domain alignment also needs inputs of the target domain)"
    )
    assert plan_stages(adapted("text", "continue_pretraining")).notes[-1] == (
        "Stage 0, pretraining, before stage 1: everything below the head learns to predict masked tokens in "
        f"the 13 inputs of {targets['text']} and of the training split, for 2 epochs at lr 0.001."
    )
    content = adapted("text", "dann").model_dump(mode="json")
    content["domain_adaptation"] |= {"target": "nobody/has-this", "stages": ["all"]}
    assert plan_stages(parse_recipe(content)).notes[-2:] == (
        "Stage head has no domain alignment: it is not in domain_adaptation.stages.",
        "Stage all aligns the head's input with the inputs of nobody/has-this: dann, weight 1.",
    )


def test_the_path_of_the_other_domain_is_resolved_next_to_the_recipe_and_not_published(tmp_path, adapted):
    content = adapted("text", "dann").model_dump(mode="json")
    content["domain_adaptation"]["target"] = "films.csv"
    (tmp_path / "films.csv").write_text("text\na film\n", encoding="utf-8")
    found = resolve_paths(parse_recipe(content), [tmp_path])
    assert found.domain_adaptation.target == str(tmp_path / "films.csv")
    assert portable_recipe(found).domain_adaptation.target == "./films.csv"
    assert portable_recipe(adapted("text", None)).domain_adaptation is None


def test_the_inputs_of_the_other_domain_count_among_the_data(tmp_path, adapted):
    prepared = prepare_run(adapted("text", "dann"), start_processes())
    assert len(prepared.domain_inputs) == 13 and not prepared.pretrains
    assert prepare_run(adapted("text", "continue_pretraining"), start_processes()).pretrains
    assert prepare_run(adapted("text", None), start_processes()).domain_inputs is None


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("continue_pretraining", "Before the first stage, the backbone was pretrained for "),
        ("dann", "the features were trained against a domain classifier (domain-adversarial training)"),
        (None, None),
    ],
)
def test_report_and_card_mention_the_domain_adaptation(runs, method, said):
    folder = runs("text", method)[0]
    for text in ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "model/README.md")):
        assert "another domain" not in text if said is None else said in text


def test_a_teacher_in_a_stage_that_aligns_is_refused(runs, adapted):
    recipe = with_stages(adapted("text", "dann"), {}, {"teacher": str(runs("text", None)[0])})
    assert refusal(lambda: plan_stages(recipe)) == (
        "stages[1].teacher must not be set in a stage that uses dann. "
        "List only the other stages in domain_adaptation.stages."
    )


@pytest.mark.parametrize(("kind", "field"), [("image", "mixup"), ("image", "cutmix"), ("text", "r_drop")])
def test_methods_that_mix_or_repeat_batches_are_refused_with_domain_alignment(adapted, kind, field):
    recipe = with_stages(adapted(kind, "coral"), {}, {"regularize": {field: 1.0}})
    assert refusal(lambda: plan_stages(recipe)) == (
        f"stages[1].regularize.{field} must not be set in a stage that uses coral. "
        "List only the other stages in domain_adaptation.stages."
    )


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_strategy_with_another_domain_is_planned_with_and_without_the_data(adapted, at_hand):
    content = adapted("text", "dann").model_dump(mode="json")
    del content["stages"]
    content["strategy"] = {"name": "gradual_unfreeze", "epochs": 1}
    if not at_hand:
        content["data"]["path"] = "nobody/has-this"
    report = plan_stages(parse_recipe(content))
    assert (report.examples is not None) == at_hand
    assert any("domain" in note for note in report.notes)
    if at_hand:
        assert prepare_run(parse_recipe(content), start_processes()).domain_inputs is not None


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("text", "dann"),
        ("image", "coral"),
        ("text", "continue_pretraining"),
        ("image", "continue_pretraining"),
    ],
)
def test_a_time_limit_that_is_not_reached_changes_nothing(tmp_path, adapted, kind, method):
    """The rehearsal of each stage, and that of the pretraining, use copies of the model and the methods."""
    weights = []
    for limit in (None, "10h"):
        quick_run(adapted(kind, method, limit=limit), tmp_path / str(limit))
        weights.append(weights_of(tmp_path / str(limit)))
    assert changed(*weights) == set()


def test_a_pretraining_is_laid_out_for_the_steps_that_fit(tmp_path, adapted, monkeypatch):
    monkeypatch.setattr("hf_finetune.training.stage_limit.steps_that_fit", lambda *args: 3)
    result = quick_run(adapted("text", "continue_pretraining", limit="10h"), tmp_path / "run")
    pretraining = result.metrics["pretraining"]
    assert (pretraining["steps"], pretraining["limit"]["fitting_steps"]) == (3, 3)
    assert [stage["steps"] for stage in result.metrics["stages"]] == [3, 3]
