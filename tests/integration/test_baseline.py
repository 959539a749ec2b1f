"""The linear probe: fitted to examples without augmentation, its penalty by cross-validation."""

import json

import numpy as np
import pytest
import torch
from feature_scales import MedianScaler
from run_helpers import quick_run, tiny_image_recipe
from sklearn.linear_model import LogisticRegression

from hf_finetune.data.recipe_data import load_data
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.baselines import fit_frozen_baselines
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.training.linear_fit import INVERSE_STRENGTHS

PLAIN = [ExecutionMode("fp32", "contiguous", False)]


def ready_for(recipe):
    return prepare_with_data(recipe, load_data(recipe))


def baseline_of(recipe):
    return fit_frozen_baselines(ready_for(recipe), PLAIN, torch.device("cpu"))["linear_probe"]


def with_augment(recipe, preset):
    content = recipe.model_dump(mode="json")
    return parse_recipe({**content, "data": {**content["data"], "augment": preset}})


def features_by_hand(recipe, layer):
    """Compute the head's input of each training and test example, prepared as for inference, without a cache."""
    prepared = ready_for(recipe)
    model, processor = load_pretrained(prepared).model.eval(), prepared.processor
    found, rows = [], {}
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda module, args: found.append(args[0]))
    for split in ("train", "test"):
        for example in getattr(prepared.data, split):
            with torch.no_grad():
                model(**processor(example["image"].convert("RGB"), return_tensors="pt"))
        rows[split] = np.concatenate([value.flatten(1).numpy() for value in found]).astype(np.float64)
        found.clear()
    handle.remove()
    return rows["train"], np.array(prepared.data.train["label"]), rows["test"]


def test_the_baseline_does_not_depend_on_how_training_examples_are_augmented(squares, timm_checkpoint):
    recipe = tiny_image_recipe(squares, timm_checkpoint, evaluation={})
    plain, strong = (with_augment(recipe, preset) for preset in ("none", "strong"))
    expected, found = baseline_of(plain), baseline_of(strong)
    assert np.array_equal(found.scores, expected.scores) and found.about == expected.about
    train, labels, test = features_by_hand(strong, "timm_model.fc")
    scaler = MedianScaler().fit(train)
    model = LogisticRegression(C=found.about["C"], max_iter=1000).fit(scaler.transform(train), labels)
    assert found.scores == pytest.approx(model.predict_proba(scaler.transform(test)), abs=5e-3)
    losses = {each["C"]: each["loss"] for each in found.about["cross_validation"]}
    assert found.about["C"] == min(losses, key=losses.get)
    assert len(INVERSE_STRENGTHS) >= 5 and INVERSE_STRENGTHS[-1] / INVERSE_STRENGTHS[0] >= 1e4


def test_features_report_and_baseline_are_one_function(tmp_path, squares, timm_checkpoint):
    """A run of the strategy without augmentation has the metrics and the penalty of its own baseline."""
    recipe = with_augment(tiny_image_recipe(squares, timm_checkpoint, evaluation={}), "none").model_dump(
        mode="json"
    )
    done = quick_run(parse_recipe({**recipe, "stages": [], "strategy": "features"}), tmp_path / "run")
    content = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))
    assert content["baseline_fit"] == content["stages"][0]["fit"]
    for name, value in content["baselines"]["linear_probe"].items():
        assert content["test"][name] == pytest.approx(value)


def test_examples_of_one_group_are_in_one_fold_of_the_cross_validation(tmp_path, bert_checkpoint):
    """Two copies of each text of noise are a group: a fold that splits them would know the labels of its test part."""
    table = tmp_path / "data.csv"
    words = ["good", "great", "fine", "bad", "poor", "dull", "film", "plot"]
    generator = np.random.default_rng(0)
    rows = [f"{' '.join(generator.choice(words, 5))} ,{generator.choice(['a', 'b'])},{n}" for n in range(30)]
    lines = [row.replace(" ,", f" {word},") for row in rows for word in ("the", "a")]
    table.write_text("text,label,author\n" + "\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "task": "text-classification",
        "model": str(bert_checkpoint),
        "data": {"path": str(table), "split": {"validation": 0, "test": 0.2, "group": "author"}},
        "stages": [{"name": "head", "train": "head", "epochs": 1.0, "lr": 0.1}],
    }
    prepared = ready_for(parse_recipe(recipe))
    groups = prepared.data.train_groups
    assert len(groups) == len(prepared.data.train) and len(set(groups)) == len(groups) / 2
    assert baseline_of(parse_recipe(recipe)).about["C"] == min(INVERSE_STRENGTHS)
