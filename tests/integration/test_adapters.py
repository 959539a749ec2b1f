"""Whole runs with adapters on tiny models: trained parameters, resuming, and the saved model."""

import json

import pytest
import timm
import torch
from plain_process import run_plain
from run_helpers import NO_PROBE, Record, Stop, changed, interrupt, log_of, quick_run, refusal, without_times
from safetensors.torch import load_file, save_file
from test_models_adapters import assert_alike, load_adapter
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    ViTImageProcessor,
)

from hf_finetune.doctor.checkpoint import realign_weights
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.models.adapters import adapted_layers, adapter_names, add_adapter
from hf_finetune.models.layout import head_names
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.planner import plan
from hf_finetune.training.stage_weights import load_weights

MODELS = ["bert", "vit", "timm/test_vit", "timm/test_resnet", "timm/test_convnext"]
KINDS = ["lora", "dora", "ia3"]
STEPS = {"epochs": None, "max_steps": 3, "batch_size": 4, "lr": 0.02}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, tiny_model, bert_checkpoint):
    """Return a function that returns the folder of a checkpoint, by the model's name."""
    made = {"bert": bert_checkpoint}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name.replace("/", "-"))
            tiny_model(name).save_pretrained(made[name])
            if name == "vit":
                ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def recipe_of(checkpoints, reviews, squares):
    """Return a function that makes a recipe for a model: an adapter, or none, and stages by their selectors."""

    def make(name, adapter, *selectors, **common):
        text = name == "bert"
        data = {"path": str(reviews if text else squares), "split": {"validation": 0.17, "test": 0.17}}
        fields = {**STEPS, "best": None, **common}  # any change must be visible
        return parse_recipe(
            {
                "task": "text-classification" if text else "image-classification",
                "model": {"path": str(checkpoints(name)), "adapter": adapter},
                "data": data if text else {**data, "augment": "light"},
                "stages": [{"train": selector, **fields} for selector in selectors],
                "evaluation": NO_PROBE,
                "seed": 5,
            }
        )

    return make


def loaded(name, folder):
    auto = AutoModelForSequenceClassification if name == "bert" else AutoModelForImageClassification
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    return model.eval()


def batch_of(name):
    if name == "bert":
        return {"input_ids": torch.randint(4, 15, (3, 7), generator=torch.Generator().manual_seed(2))}
    return {"pixel_values": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))}


def logits_of(model, name):
    with torch.no_grad():
        return model.eval()(**batch_of(name)).logits


def unmerged(recipe, folder, name, stage):
    """Build the model of a stage again, with its adapter."""
    model = loaded(name, folder / "model")  # the weights of the stage are loaded below
    add_adapter(model, head_names(model), recipe.model.adapter)
    load_weights(model, folder / "stages" / stage / "model.safetensors")
    return model


# --- Trained parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "biases"])
@pytest.mark.parametrize("name", MODELS)
def test_a_stage_changes_exactly_the_planned_parameters_and_saves_a_plain_model(
    tmp_path, recipe_of, name, kind
):
    adapter, selector = (None, ("head", "biases")) if kind == "biases" else (kind, kind)
    recipe = recipe_of(name, adapter, selector)
    record = Record()
    result = quick_run(recipe, tmp_path / "run", callbacks=[record])
    (stage_plan,) = plan(recipe).plan.stages
    moved, trainable = changed(record.before[0], record.after[0]), set(stage_plan.trainable)
    moving = {other.rpartition(".")[0] for other in trainable}
    statistics = {other for other in moved - trainable if other.rpartition(".")[0] in moving}
    assert all(other.endswith(("running_mean", "running_var", "num_batches_tracked")) for other in statistics)
    assert bool(statistics) == (
        kind == "biases" and name == "timm/test_resnet"
    )  # its BatchNorms are trained then
    assert moved - statistics <= trainable
    # attention does not depend on a key's bias: its gradient is only rounding
    assert {
        other for other in trainable - moved if "key.bias" not in other and "qkv.bias" not in other
    } == set()
    assert record.groups[0] == [
        (list(group.parameters), pytest.approx(group.lr), group.weight_decay) for group in stage_plan.groups
    ]
    entry = result.metrics["stages"][0]
    before = record.before[0]
    if kind == "biases":
        head = {
            "classifier.weight",
            "timm_model.head.weight",
            "timm_model.fc.weight",
            "timm_model.head.fc.weight",
        }
        assert {other for other in trainable if not other.endswith("bias")} == head & before.keys()
        assert {other for other in before if other.endswith("bias")} <= trainable
        return
    model = unmerged(recipe, result.folder, name, f"01-{kind}")
    assert trainable == adapter_names(model) | set(head_names(model))
    assert entry["total_parameters"] == model.num_parameters()
    assert entry["trainable_parameters"] == sum(before[other].numel() for other in trainable)
    expected = logits_of(model, name)
    merged = loaded(name, result.folder / "model")
    assert adapted_layers(merged) == {}
    assert_alike(logits_of(merged, name), expected)
    if name in ("timm/test_resnet", "timm/test_convnext"):  # timm resamples the position embedding of a ViT
        plain = timm.create_model(f"local-dir:{result.folder / 'model'}", pretrained=True).eval()
        with torch.no_grad():
            expected = logits_of(realign_weights(merged), name)
            assert torch.equal(realign_weights(plain)(batch_of(name)["pixel_values"]), expected)


@pytest.mark.parametrize("name", ["bert", "timm/test_resnet"])
def test_stages_before_and_after_an_adapter_train_what_they_declare(tmp_path, recipe_of, name):
    recipe = recipe_of(name, "lora", "head", "lora", "last:2", "all")
    record = Record()
    quick_run(recipe, tmp_path / "run", callbacks=[record])
    stages = plan(recipe).plan.stages
    for index, stage_plan in enumerate(stages):
        moved, trainable = changed(record.before[index], record.after[index]), set(stage_plan.trainable)
        statistics = {other for other in moved if other.rpartition(".")[2].startswith(("running", "num_b"))}
        assert moved - statistics <= trainable
        assert {
            other
            for other in trainable - moved
            if "key.base_layer.bias" not in other and "key.bias" not in other
        } == set()
        assert bool(statistics) == (name != "bert" and stage_plan.train in ("last:2", "all"))
        if index:
            assert changed(record.after[index - 1], record.before[index]) == set()
    adapter = {other for other in record.before[0] if "lora_" in other}
    assert adapter and all(
        bool(adapter & set(stage_plan.trainable)) == (stage_plan.train in ("lora", "all"))
        for stage_plan in stages
    )
    assert set(stages[3].trainable) == set(plan(recipe).plan.layout.names())
    model = unmerged(recipe, tmp_path / "run", name, "04-all")
    merged = loaded(name, tmp_path / "run" / "model")
    assert_alike(logits_of(merged, name), logits_of(model, name))


# --- Interrupted and resumed ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe_of):
    adapter = {"type": "lora", "r": 4, "dropout": 0.3, "save": "both"}
    recipe = recipe_of("bert", adapter, "head", "lora", epochs=2.0, max_steps=None)
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("whole") / "run").folder


@pytest.mark.parametrize(
    "stop",
    [
        ("lora", 0, "begin"),
        ("lora", 3, "ctrl-c"),
        ("lora", 7, "save"),
        ("lora", 9, "begin"),
        ("lora", 14, "save"),
    ],
    ids=lambda stop: f"{stop[2]}-{stop[1]}",
)
def test_an_interrupted_adapter_stage_ends_the_same(tmp_path, whole, stop):
    recipe, folder = whole
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    files = [f"stages/{stage}/model.safetensors" for stage in ("01-head", "02-lora")]
    for file in (*files, "model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert changed(load_file(folder / file), load_file(tmp_path / "run" / file)) == set()
    assert log_of(folder, "02-lora") == log_of(tmp_path / "run", "02-lora")
    metrics = [
        json.loads((one / "metrics.json").read_text(encoding="utf-8")) for one in (folder, tmp_path / "run")
    ]
    assert without_times(metrics[0]) == without_times(metrics[1])
    config = (folder / "adapter" / "adapter_config.json").read_bytes()
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").read_bytes() == config


def test_the_saved_recipe_names_the_adapter_and_runs_again(tmp_path, whole):
    recipe, folder = whole
    again = load_recipe(folder / "recipe.yaml")
    assert again == recipe
    quick_run(again, tmp_path / "again")
    file = "adapter/adapter_model.safetensors"
    assert changed(load_file(folder / file), load_file(tmp_path / "again" / file)) == set()


# --- The saved model -----------------------------------------------------------------------------------------------

ALONE = """
import sys
sys.modules["peft"] = None  # as where it is not installed
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    save_file({"logits": model(**load_file(sys.argv[2])).logits}, sys.argv[3])
"""


def test_the_model_needs_no_peft(tmp_path, whole):
    recipe, folder = whole
    save_file(batch_of("bert"), tmp_path / "batch.safetensors")
    done = run_plain(ALONE, folder / "model", tmp_path / "batch.safetensors", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = logits_of(loaded("bert", folder / "model"), "bert")
    assert torch.equal(load_file(tmp_path / "out")["logits"], expected)
    assert_alike(logits_of(unmerged(recipe, folder, "bert", "02-lora"), "bert"), expected)


@pytest.mark.parametrize("name", ["bert", "vit", "timm/test_resnet"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_loads_the_adapter_alone(tmp_path, recipe_of, checkpoints, name, kind):
    recipe = recipe_of(name, {"type": kind, "save": "adapter"}, "head", "adapter")
    folder = quick_run(recipe, tmp_path / "run").folder
    assert sorted(path.name for path in folder.iterdir()) == [
        *(
            "adapter",
            "baselines",
            "data.json",
            "examples.npz",
            "figures",
            "manifest.json",
            "metrics.json",
            "mistakes.json",
        ),
        *("predictions.parquet", "recipe.yaml", "report.html", "stages"),
    ]
    size = (folder / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < (checkpoints(name) / "model.safetensors").stat().st_size
    auto = AutoModelForSequenceClassification if name == "bert" else AutoModelForImageClassification
    labels = 2 if name == "bert" else 3
    base = auto.from_pretrained(checkpoints(name), num_labels=labels, ignore_mismatched_sizes=True)
    model = load_adapter(base, folder / "adapter")
    base = auto.from_pretrained(checkpoints(name), num_labels=labels, ignore_mismatched_sizes=True)
    add_adapter(base, head_names(base), AdapterSpec(type=kind))
    load_weights(base, folder / "stages" / "02-adapter" / "model.safetensors")
    torch.testing.assert_close(logits_of(model, name), logits_of(base, name), rtol=0, atol=1e-6)
    card = (folder / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f'base_model: "{checkpoints(name)}"' in card and "PeftModel.from_pretrained" in card
    assert refusal(lambda: load_classifier(folder)) == (
        f"{folder} contains only an adapter. See {folder / 'adapter' / 'README.md'} for loading it with peft."
    )


def test_an_adapter_is_not_saved_alone_where_more_than_it_was_trained(tmp_path, recipe_of):
    recipe = recipe_of("bert", {"type": "lora", "save": "both"}, "lora", "last:1", ["head", "biases"])
    message = (
        "stages[1].train must train only the adapter and the head when model.adapter.save is not merged. "
        "Got 'last:1'. Set model.adapter.save to merged, or train lora.\n"
        "stages[2].train must train only the adapter and the head when model.adapter.save is not merged. "
        "Got 'head, biases'. Set model.adapter.save to merged, or train lora."
    )
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == message
    assert refusal(lambda: plan(recipe)) == message
    assert not (tmp_path / "run").exists()


def test_the_plan_shows_the_adapter_and_its_rate(recipe_of):
    recipe = recipe_of("bert", {"type": "lora", "r": 2}, "lora", layer_decay=0.5)
    report = plan(recipe)
    assert report.notes[-1] == "An adapter, lora of rank 2, is in 4 layers: query, value."
    assert [(group.layers, group.lr, group.size) for group in report.plan.stages[0].groups] == [
        ("head", 0.02, 32),
        ("head", 0.02, 2),
        ("lora in bert.encoder.layer.1", 0.01, 128),
        ("lora in bert.encoder.layer.0", 0.005, 128),
    ]


def test_a_selector_and_an_adapter_that_do_not_meet_are_errors(tmp_path, recipe_of):
    assert refusal(lambda: quick_run(recipe_of("bert", None, "head", "lora"), tmp_path / "run")) == (
        "stages[1].train must be the adapter of the model. Got 'lora'. Add it with model.adapter=lora."
    )
    assert refusal(lambda: quick_run(recipe_of("bert", "dora", "head", "last:1"), tmp_path / "run")) == (
        "model.adapter must be trained by a stage. Got 'dora'. Add or change a stage: train: dora."
    )
    assert not (tmp_path / "run").exists()


def test_layers_that_the_model_does_not_call_are_refused_and_nothing_is_written(
    tmp_path, tiny_model, squares
):
    tiny_model("timm/eva02_tiny_patch14_224", size=224).save_pretrained(tmp_path / "eva")
    recipe = parse_recipe(
        {
            "task": "image-classification",
            "model": {"path": str(tmp_path / "eva"), "adapter": "lora"},
            "data": {"path": str(squares)},
            "stages": [{"train": "lora", **STEPS}],
        }
    )
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == (
        "model.adapter.target must not contain layers that the model never calls. "
        "Got 'timm_model.blocks.0.attn.qkv' and 11 more. "
        "The model uses their weights without calling them, so an adapter has no effect. Choose other layers."
    )
    assert not (tmp_path / "run").exists()
