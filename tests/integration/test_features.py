"""A head that is fitted to frozen features: only it changes, the saved model is a plain one, and runs resume."""

import json

import numpy as np
import pytest
import torch
from feature_scales import MedianScaler
from run_helpers import (
    Record,
    Stop,
    changed,
    log_of,
    metrics_of,
    quick_run,
    refusal,
    tiny_image_recipe,
    tiny_text_recipe,
    weights_of,
    without_times,
)
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression, Ridge
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, pipeline
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.data.recipe_data import load_data
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.publishing.card import write_card
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepare import plan_stages, prepare_with_data

FIT = {"name": "head", "train": "head", "fit": "logistic_regression"}
ALL = {"name": "all", "train": "all", "epochs": 1.0, "lr": 1e-3, "batch_size": 4}
HEADS = {"image": "timm_model.fc", "text": "classifier"}


@pytest.fixture(scope="module")
def recipes(squares, reviews, timm_checkpoint, bert_checkpoint):
    augmented = tiny_image_recipe(squares, timm_checkpoint, stages=[FIT]).model_dump(mode="json")
    return {
        "image": parse_recipe({**augmented, "data": {**augmented["data"], "augment": "none"}}),
        "text": tiny_text_recipe(
            reviews, {"path": str(bert_checkpoint), "head": {"pool": "own"}}, stages=[FIT]
        ),
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory, recipes):
    return {
        kind: quick_run(recipe, tmp_path_factory.mktemp(kind) / "run").folder
        for kind, recipe in recipes.items()
    }


def with_stages(recipe, *stages, **changes):
    content = recipe.model_dump(mode="json")
    return parse_recipe({**content, "stages": list(stages), **changes})


def examples_of(recipe, split):
    """Return the pretrained model and its inputs of a split, as the run prepares them."""
    prepared = prepare_with_data(recipe, load_data(recipe))
    inputs = prepare_inputs(prepared.task, prepared.data, prepared.processor, recipe.data, recipe.seed)
    return load_pretrained(prepared).model.eval(), inputs, getattr(inputs, split)


def features_of(recipe, split, layer):
    """Return the head's input of each example, computed alone and without a cache, and the labels."""
    model, inputs, examples = examples_of(recipe, split)
    rows, labels, found = [], [], []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda module, args: found.append(args[0]))
    for index in range(len(examples)):
        batch = inputs.collate([examples[index]])
        labels.append(batch.pop("labels")[0].numpy())
        with torch.no_grad():
            model(**batch)
        rows.append(found.pop().flatten().numpy())
    handle.remove()
    return np.stack(rows).astype(np.float64), np.stack(labels)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_head_equals_scikit_learns_on_frozen_features_and_nothing_else_changes(kind, recipes, done):
    layer, saved = HEADS[kind], load_file(done[kind] / "stages" / "01-head" / "model.safetensors")
    before = load_pretrained(prepare_with_data(recipes[kind], load_data(recipes[kind]))).model.state_dict()
    assert changed({name: before[name] for name in saved}, saved) == {f"{layer}.weight", f"{layer}.bias"}
    assert_scikit_learns(done[kind], recipes[kind], kind, None)


def assert_scikit_learns(folder, recipe, kind, class_weight):
    """Compare the probabilities of a fitted head with those of scikit-learn's."""
    layer, saved = HEADS[kind], load_file(folder / "stages" / "01-head" / "model.safetensors")
    features, labels = features_of(recipe, "train", layer)
    fit = metrics_of(folder)["stages"][0]["fit"]
    assert fit["method"] == "logistic_regression"
    scaler = MedianScaler().fit(features)
    model = LogisticRegression(C=fit["C"], max_iter=1000, class_weight=class_weight)
    model.fit(scaler.transform(features), labels)
    logits = features @ saved[f"{layer}.weight"].double().numpy().T + saved[f"{layer}.bias"].double().numpy()
    found = torch.softmax(torch.tensor(logits), dim=1).numpy()
    assert found == pytest.approx(model.predict_proba(scaler.transform(features)), abs=5e-3)


@pytest.mark.parametrize(("kind", "name", "classes"), [("image", "blue", 3), ("text", "bad", 2)])
def test_a_fitted_head_balances_rare_classes(tmp_path, recipes, done, kind, name, classes):
    weights = {"method": "class_weights", "weights": {name: 4.0}}
    weighted = with_stages(recipes[kind], {**FIT, "balance": weights})
    folder = quick_run(weighted, tmp_path / "weighted").folder
    told = CliRunner().invoke(app, ["plan", str(folder / "recipe.yaml")]).output
    assert "by cross-validation on the training split; balance: class_weights" in " ".join(told.split())
    assert_scikit_learns(folder, recipes[kind], kind, {0: 4.0, **dict.fromkeys(range(1, classes), 1.0)})
    shifted = quick_run(
        with_stages(recipes[kind], {**FIT, "balance": "logit_adjustment"}), tmp_path / "shifted"
    )
    plain, moved = weights_of(done[kind]), weights_of(shifted.folder)
    (bias,) = changed(plain, moved)
    assert bias.endswith(".bias")
    _, labels = features_of(recipes[kind], "train", HEADS[kind])
    shares = np.log(np.bincount(labels) / len(labels))
    assert (plain[bias] - moved[bias]).numpy() == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_metrics_describe_the_fit_and_validation_is_of_the_saved_model(kind, recipes, done):
    entry = metrics_of(done[kind])["stages"][0]
    assert (entry["epochs"], entry["steps"], entry["best_step"]) == (1.0, 0, None)
    assert entry["prefix_cache"]["used"] and entry["prefix_cache"]["views"] == 1
    assert entry["trainable_parameters"] < entry["total_parameters"]
    losses = [each["loss"] for each in entry["fit"]["cross_validation"]]
    assert entry["fit"]["C"] == entry["fit"]["cross_validation"][losses.index(min(losses))]["C"]
    auto = AutoModelForImageClassification if kind == "image" else AutoModelForSequenceClassification
    model = auto.from_pretrained(done[kind] / "model").eval()
    _, inputs, examples = examples_of(recipes[kind], "validation")
    batch = inputs.collate([examples[index] for index in range(len(examples))])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
    assert entry["validation"]["accuracy"] == pytest.approx(
        (logits.argmax(1) == labels).float().mean().item()
    )
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert entry["validation"]["loss"] == pytest.approx(loss, rel=1e-4)


def test_plain_transformers_gives_the_runs_predictions(done, reviews):
    classify = pipeline("text-classification", model=str(done["text"] / "model"), top_k=None)
    found = read_predictions(done["text"] / "predictions.parquet")
    lines = reviews.read_text(encoding="utf-8").splitlines()[1:]
    for name, row in zip(found.ids[:4], found.scores[:4], strict=True):
        text = lines[int(name.partition(":")[2])].rpartition(",")[0]
        said = {each["label"]: each["score"] for each in classify([text])[0]}
        assert [said[label] for label in found.label_names] == pytest.approx(row.tolist(), abs=1e-4)


def test_a_report_and_a_card_can_be_written_of_it(done):
    page = write_report(done["image"]).read_text(encoding="utf-8")
    assert "logistic regression on scaled features, C " in page and ", without optimizer steps" in page
    assert "| head | head |" in write_card(done["image"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["image", "text"])
def test_without_a_cache_the_head_is_the_same_up_to_rounding(tmp_path, recipes, done, kind):
    recipe = with_stages(recipes[kind], FIT, speed={"prefix_cache": None})
    folder = quick_run(recipe, tmp_path / "run").folder
    assert metrics_of(folder)["stages"][0]["prefix_cache"]["used"] is False
    one, other = (weights_of(each) for each in (done[kind], folder))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)


def test_augmented_images_have_two_versions_or_the_requested_number(tmp_path, recipes):
    augmented = recipes["image"].model_dump(mode="json")["data"] | {"augment": "strong"}
    for name, speed, views in (("auto", {}, 2), ("three", {"prefix_cache": {"views": 3}}, 3)):
        folder = quick_run(
            with_stages(recipes["image"], FIT, data=augmented, speed=speed), tmp_path / name
        ).folder
        entry = metrics_of(folder)["stages"][0]
        assert (entry["epochs"], entry["prefix_cache"]["views"]) == (float(views), views)


# --- Further stages and resuming ----------------------------------------------------------------------------


def test_the_next_stage_begins_with_the_fitted_head(tmp_path, recipes, done):
    """Linear probing, then fine-tuning."""
    watch = Record()
    folder = quick_run(
        with_stages(recipes["text"], FIT, {**ALL, "best": None}), tmp_path / "run", callbacks=[watch]
    ).folder
    fitted = load_file(done["text"] / "stages" / "01-head" / "model.safetensors")
    assert len(watch.before) == 1
    assert changed({name: watch.before[0][name] for name in fitted}, fitted) == set()
    moved = changed(watch.before[0], watch.after[0])
    assert "bert.encoder.layer.0.output.dense.weight" in moved and "classifier.weight" in moved
    assert [entry["steps"] for entry in metrics_of(folder)["stages"]] == [0, 7]


def same_results(one, other):
    assert changed(weights_of(one), weights_of(other)) == set()
    first, second = (without_times(metrics_of(folder)) for folder in (one, other))
    assert first == second
    assert (one / "predictions.parquet").read_bytes() == (other / "predictions.parquet").read_bytes()


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("place", ["fit_linear", "set_linear"])
def test_a_run_that_is_interrupted_during_the_fit_ends_the_same(
    tmp_path, recipes, done, kind, place, monkeypatch
):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"hf_finetune.training.head_fit.{place}", interrupt)
        quick_run(recipes[kind], tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert [stage["state"] for stage in manifest["stages"]] == ["running"]
    assert not list((tmp_path / "run").glob("stages/*/model.safetensors"))
    quick_run(load_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", resume=True)
    same_results(done[kind], tmp_path / "run")


def test_a_run_that_is_killed_after_the_fit_ends_the_same(tmp_path, recipes, done, monkeypatch):
    """The weights are saved, but the manifest does not list them yet."""

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("hf_finetune.runs.stages._metrics_entry", killed)
        quick_run(recipes["text"], tmp_path / "run")
    assert (tmp_path / "run" / "stages" / "01-head" / "model.safetensors").is_file()
    quick_run(recipes["text"], tmp_path / "run", resume=True)
    same_results(done["text"], tmp_path / "run")


@pytest.mark.parametrize("stop", [("all", 0, "begin"), ("all", 3, "ctrl-c"), ("all", 7, "save")])
def test_a_run_that_is_interrupted_in_the_next_stage_does_not_fit_again(tmp_path, recipes, monkeypatch, stop):
    recipe = with_stages(recipes["text"], FIT, ALL)
    whole = quick_run(recipe, tmp_path / "whole").folder
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "run", callbacks=[Stop(*stop)])
    monkeypatch.delattr("hf_finetune.training.head_fit.fit_linear")
    quick_run(recipe, tmp_path / "run", resume=True)
    same_results(whole, tmp_path / "run")
    assert log_of(whole, "02-all") == log_of(tmp_path / "run", "02-all")


# --- Other labels and errors ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Return a jsonl of texts with several labels each, and one of texts with a continuous target."""
    folder = tmp_path_factory.mktemp("kinds")
    words = ["good", "great", "fine", "bad", "poor", "dull"]
    several, amounts = [], []
    for index in range(60):
        held = [word for place, word in enumerate(words) if (index * 7 + place * (index + 3)) % 4 == 0]
        text = " ".join([*held, "the", "film", "plot" if index % 2 else "a", *["a"] * (index % 6)])
        several.append(json.dumps({"text": text, "label": held[:3] or ["none"]}))
        amounts.append(json.dumps({"text": text, "label": len(held) + index / 7}))
    (folder / "several.jsonl").write_text("\n".join(several), encoding="utf-8")
    (folder / "amounts.jsonl").write_text("\n".join(amounts), encoding="utf-8")
    return folder


def of_labels(kinds, bert_checkpoint, name, **changes):
    split = {"validation": 0.2, "test": 0.2, "stratify": False}
    data = {"path": str(kinds / f"{name}.jsonl"), "split": split}
    model = {"path": str(bert_checkpoint), "head": {"pool": "own"}}
    content = {"task": "text-classification", "model": model, "data": data}
    return parse_recipe({**content, **changes})


def test_continuous_targets_are_fitted_by_ridge_regression(tmp_path, kinds, bert_checkpoint):
    recipe = of_labels(
        kinds, bert_checkpoint, "amounts", strategy={"name": "features", "classifier": "ridge"}
    )
    folder = quick_run(recipe, tmp_path / "run").folder
    written = load_recipe(folder / "recipe.yaml")
    features, labels = features_of(written, "train", "classifier")
    entry = metrics_of(folder)["stages"][0]
    scaler = MedianScaler().fit(features)
    expected = Ridge(alpha=entry["fit"]["alpha"]).fit(scaler.transform(features), labels.ravel())
    saved = weights_of(folder)
    found = (
        features @ saved["classifier.weight"].double().numpy().T + saved["classifier.bias"].double().numpy()
    )
    wanted = expected.predict(scaler.transform(features))
    assert found[:, 0] == pytest.approx(wanted, abs=0.01 * np.ptp(wanted))
    assert "rmse" in entry["validation"]


def test_several_labels_are_fitted_one_by_one(tmp_path, kinds, bert_checkpoint):
    recipe = of_labels(kinds, bert_checkpoint, "several", strategy="features")
    folder = quick_run(recipe, tmp_path / "run").folder
    features, labels = features_of(load_recipe(folder / "recipe.yaml"), "train", "classifier")
    saved, entry = weights_of(folder), metrics_of(folder)["stages"][0]
    scaler = MedianScaler().fit(features)
    logits = (
        features @ saved["classifier.weight"].double().numpy().T + saved["classifier.bias"].double().numpy()
    )
    for index, column in enumerate(labels.T):
        model = LogisticRegression(C=entry["fit"]["C"], max_iter=1000).fit(scaler.transform(features), column)
        found = 1 / (1 + np.exp(-logits[:, index]))
        assert found == pytest.approx(model.predict_proba(scaler.transform(features))[:, 1], abs=5e-3)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        (
            "amounts",
            {"strategy": "features"},
            "strategy.classifier must be ridge for the label type regression. Got 'logistic_regression'.",
        ),
        (
            "several",
            {"stages": [{**FIT, "fit": "ridge"}]},
            "stages[0].fit must be logistic_regression for the label type multi_label. Got 'ridge'.",
        ),
        (
            "several",
            {"stages": [FIT], "model": {"head": "cosine"}},
            "stages[0].fit must be gradient unless the head is one linear layer with a bias; this one has "
            "classifier.layers.0.weight, classifier.layers.0.scale. Got 'logistic_regression'.",
        ),
    ],
)
def test_heads_that_cannot_be_fitted_are_refused_before_any_file_is_written(
    tmp_path, kinds, bert_checkpoint, name, changes, expected
):
    if "model" in changes:
        changes = {**changes, "model": {"path": str(bert_checkpoint), **changes["model"]}}
    recipe = of_labels(kinds, bert_checkpoint, name, **changes)
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == expected
    assert refusal(lambda: plan_stages(recipe)) == expected
    assert not (tmp_path / "run").exists()


def test_a_head_that_takes_every_token_is_refused(tmp_path, recipes, monkeypatch):
    monkeypatch.setattr(
        "hf_finetune.runs.forward_check.nonlinear_reason", lambda *args: "classifier takes tokens"
    )
    assert refusal(lambda: quick_run(recipes["text"], tmp_path / "run")) == (
        "stages[0].fit must be gradient unless the head is one linear layer. Got 'logistic_regression'. "
        "In this model, classifier takes tokens."
    )
    assert not (tmp_path / "run").exists()


def test_the_strategy_with_sgd_trains_the_head_on_cached_features(tmp_path, recipes):
    content = recipes["text"].model_dump(mode="json", exclude={"stages"})
    strategy = {"name": "features", "classifier": "sgd", "epochs": 3, "batch_size": 8}
    folder = quick_run(parse_recipe({**content, "strategy": strategy, "speed": {"prefix_cache": {"views": 1}}}),
                 tmp_path / "run").folder  # fmt: skip
    entry = metrics_of(folder)["stages"][0]
    assert entry["steps"] == 12 and entry["prefix_cache"]["used"] and "fit" not in entry
    stage = load_recipe(folder / "recipe.yaml").stages[0]
    assert (stage.train, stage.fit, stage.optimizer.name, stage.lr) == ("head", "gradient", "sgd", 0.01)
