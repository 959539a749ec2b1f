"""Choice of the pooling of frozen texts: by cross-validation, once, and kept when a run is resumed."""

import shutil
from unittest.mock import Mock

import pytest
from run_helpers import (
    changed,
    metrics_of,
    quick_run,
    tiny_text_recipe,
    weights_of,
    without_times,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from hf_finetune.cache.cache_dir import list_cache
from hf_finetune.distributed import start_processes
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.pooling_choice import choose_pooling
from hf_finetune.runs.prepare import prepare_run

FIT = {"name": "head", "train": "head", "fit": "logistic_regression"}
SGD = {"name": "head", "train": "head", "epochs": 40.0, "lr": 1e-2, "batch_size": 8}


@pytest.fixture(scope="module")
def recipe_of_texts(reviews, bert_checkpoint):
    return tiny_text_recipe(reviews, {"path": str(bert_checkpoint), "head": {"pool": "own"}}, stages=[FIT])


@pytest.fixture(scope="module")
def useless_pooler(tmp_path_factory, bert_checkpoint):
    """Return a checkpoint whose pooled first token is constant, as if it had not been trained."""
    folder = tmp_path_factory.mktemp("useless") / "bert"
    shutil.copytree(bert_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: value * (0 if ".pooler." in name else 1) for name, value in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_pooling_of_texts_is_chosen_by_cross_validation(
    tmp_path, recipe_of_texts, useless_pooler, caplog
):
    caplog.set_level("INFO", "hf_finetune")
    content = recipe_of_texts.model_dump(mode="json")
    content |= {"model": str(useless_pooler), "stages": [], "strategy": "features", "evaluation": {}}
    recipe = parse_recipe(content)
    folder = quick_run(recipe, tmp_path / "run").folder
    fit = metrics_of(folder)["stages"][0]["fit"]
    losses = fit["pooling"]
    assert set(losses) == {"own", "cls", "mean"}
    assert fit["pool"] == min(losses, key=losses.get) != "own"
    assert min(each["loss"] for each in fit["cross_validation"]) == pytest.approx(
        losses[fit["pool"]], rel=1e-3
    )
    assert load_recipe(folder / "recipe.yaml").model.head.pool == fit["pool"]
    assert metrics_of(folder)["baseline_fit"]["pool"] == fit["pool"]
    for name, value in metrics_of(folder)["baselines"]["linear_probe"].items():
        assert metrics_of(folder)["test"][name] == pytest.approx(value)
    needs = "trust_remote_code=True"
    assert needs in caplog.text and needs in (folder / "report.html").read_text(encoding="utf-8")
    assert needs in (folder / "model" / "README.md").read_text(encoding="utf-8")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder / "model", trust_remote_code=True)
    assert type(loaded.classifier).__name__ == "ClassificationHead"
    # a resumed run keeps the chosen pooling, with the recipe as given
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_finetune.runs.finish.finish_model", Mock(side_effect=KeyboardInterrupt))
        quick_run(recipe, stopped)
    quick_run(recipe, stopped, resume=True)
    assert changed(weights_of(folder), weights_of(stopped)) == set()
    assert without_times(metrics_of(stopped)) == without_times(metrics_of(folder))


def test_a_head_that_is_trained_in_steps_on_frozen_texts_pools_by_cross_validation(
    recipe_of_texts, useless_pooler
):
    content = recipe_of_texts.model_dump(mode="json", exclude={"stages"})
    strategy = {"name": "features", "classifier": "sgd"}
    recipe = parse_recipe({**content, "model": str(useless_pooler), "strategy": strategy})
    state = start_processes()
    prepared = prepare_run(recipe, state)
    chosen = choose_pooling(prepared, "features", None, state)
    assert chosen.recipe.model.head.pool == chosen.requested.model.head.pool
    assert chosen.recipe.model.head.pool == min(chosen.pooling.losses, key=chosen.pooling.losses.get) != "own"
    assert choose_pooling(prepared, None, None, state) is prepared, (
        "stages that somebody wrote are as written"
    )


@pytest.mark.parametrize("case", ["chosen", "own", "steps"])
def test_the_frozen_layers_compute_each_text_once(
    tmp_path, recipe_of_texts, useless_pooler, case, monkeypatch
):
    """The choice of the pooling, the stage and the baseline read the same vectors."""
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    content = recipe_of_texts.model_dump(mode="json")
    own = {"path": str(useless_pooler), "head": {"pool": "own"}}
    changes = {
        "chosen": {"model": str(useless_pooler), "stages": [], "strategy": "features"},
        "own": {"model": own},
        "steps": {"model": own, "stages": [SGD], "speed": {"prefix_cache": {"views": 1}}},
    }
    recipe = parse_recipe({**content, **changes[case], "evaluation": {}})
    folder = quick_run(recipe, tmp_path / "run").folder
    assert metrics_of(folder)["stages"][0]["prefix_cache"]["used"]
    assert metrics_of(folder)["baselines"]["linear_probe"]
    kept: dict[str, list[int]] = {}
    for entry in list_cache(tmp_path / "cache"):
        kept.setdefault(entry.about, []).append(entry.examples)
    assert len(kept) == 3, "each pooling"
    counts = [sorted(examples) for examples in kept.values()]
    assert [6, 6, 28] in counts, (
        "validation, test and training examples of the head's pooling, each of them once"
    )
    assert all(examples in ([6, 6, 28], [6, 28]) for examples in counts), (
        "others do not read the validation split"
    )


def test_each_fold_chooses_its_pooling_on_its_own_training_examples(
    tmp_path, recipe_of_texts, useless_pooler
):
    content = recipe_of_texts.model_dump(mode="json")
    content |= {"model": str(useless_pooler), "evaluation": {"linear_probe": None, "folds": 2}}
    folder = quick_run(parse_recipe(content), tmp_path / "run").folder
    assert load_recipe(folder / "recipe.yaml").model.head.pool != "own"
    fits = [metrics_of(folder / "folds" / f"{fold}-of-2")["stages"][0]["fit"] for fold in (1, 2)]
    of_all = metrics_of(folder)["stages"][0]["fit"]["pooling"]
    assert all(set(fit["pooling"]) == set(of_all) and fit["pooling"] != of_all for fit in fits)


def test_the_architectures_own_pooling_can_be_requested(tmp_path, recipe_of_texts, useless_pooler):
    content = recipe_of_texts.model_dump(mode="json")
    model = {"path": str(useless_pooler), "head": {"pool": "own"}}
    folder = quick_run(parse_recipe({**content, "model": model}), tmp_path / "run").folder
    assert "pool" not in metrics_of(folder)["stages"][0]["fit"]
    info = AutoModelForSequenceClassification.from_pretrained(folder / "model", output_loading_info=True)[1]
    assert not any(info.values())
