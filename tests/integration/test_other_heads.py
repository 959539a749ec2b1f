"""Whole runs with other heads and augmented training examples: resumed, evaluated, published and shown."""

import json
import shutil

import pytest
import torch
from head_helpers import logits_elsewhere
from plain_process import run_plain
from run_helpers import (
    Stop,
    assert_equal_runs,
    changed,
    interrupt,
    quick_run,
    refusal,
    tiny_image_recipe,
    tiny_text_recipe,
    weights_of,
)
from transformers import BertModel

from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.models.head_spec import CODE
from hf_finetune.publishing.export import export
from hf_finetune.publishing.space import write_space
from hf_finetune.publishing.upload_plan import collect_uploads
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.prepare import plan_stages

OF_TIMM = {"name": "rand_augment_transform", "args": {"config_str": "rand-m9-mstd0.5"}}
IMAGE_DATA = {"augment": {"transforms": [OF_TIMM], "erase": 0.3}}
TEXT_DATA = {"augment": {"mask": 0.2, "drop": 0.1}}
MLP = {"type": "mlp", "hidden": [8], "dropout": 0.2}
POOLED = {"type": "cosine", "pool": "attention"}


def varied(recipe, head, data):
    content = recipe.model_dump(mode="json")
    content["model"]["head"] = head
    content["data"].update(data)
    return parse_recipe(content)


@pytest.fixture(scope="module")
def image(tmp_path_factory, squares, timm_checkpoint):
    recipe = varied(tiny_image_recipe(squares, timm_checkpoint), MLP, IMAGE_DATA)
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("image") / "run")


@pytest.fixture(scope="module")
def text(tmp_path_factory, reviews, bert_checkpoint):
    recipe = varied(tiny_text_recipe(reviews, bert_checkpoint), POOLED, TEXT_DATA)
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("text") / "run")


@pytest.fixture(params=["image", "text"])
def done(request):
    return request.getfixturevalue(request.param)


STOPS = [("head", 2, "ctrl-c"), ("head", 5, "begin"), ("all", 1, "ctrl-c"), ("all", 5, "begin")]


@pytest.mark.parametrize("stop", STOPS)
def test_an_interrupted_run_ends_the_same(tmp_path, done, stop):
    recipe, result = done
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("head", [MLP, {"pool": "cls"}, {"pool": "mean"}], ids=["mlp", "cls", "mean"])
def test_interrupted_runs_with_other_heads_of_texts_end_the_same(tmp_path, reviews, bert_checkpoint, head):
    recipe = varied(tiny_text_recipe(reviews, bert_checkpoint), head, TEXT_DATA)
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "run", Stop("all", 5, "begin"))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_augmentation_changes_the_trained_weights(tmp_path, text, reviews, bert_checkpoint):
    plain = varied(tiny_text_recipe(reviews, bert_checkpoint), POOLED, {})
    assert changed(weights_of(text[1].folder), weights_of(quick_run(plain, tmp_path / "run").folder))


def keep_the_tokens(original, self, epoch):
    """The tokens of the first view."""
    self.view = epoch % len(self.views)


@pytest.mark.defends(
    "hf_finetune.cache.cached_examples:CachedExamples.set_epoch",
    why="Cached rows are paired with the tokens that they were computed from",
    by=keep_the_tokens,
)
def test_as_many_versions_of_texts_as_epochs_give_the_same_results_as_no_cache(tmp_path, monkeypatch, text):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    content = text[0].model_dump(mode="json")
    content["stages"] = content["stages"][:1]
    runs = []
    for name, kept in (("without", None), ("with", {"views": 2}), ("again", {"views": 2})):
        content["speed"]["prefix_cache"] = kept
        runs.append(quick_run(parse_recipe(content), tmp_path / name))
    used = [result.metrics["stages"][0]["prefix_cache"]["used"] for result in runs]
    assert used == [False, True, True]
    one, other, again = (weights_of(result.folder) for result in runs)
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)
    assert changed(other, again) == set()


def test_it_is_evaluated_and_predicts_without_running_code_of_its_folder(tmp_path, done):
    recipe, result = done
    folder = tmp_path / "run"
    shutil.copytree(result.folder, folder)
    (folder / "model" / CODE.name).write_text("raise RuntimeError('run')", encoding="utf-8")
    found = evaluate(folder)
    assert found.metrics["accuracy"] == result.metrics["test"]["accuracy"]
    if recipe.task == "text-classification":
        assert next(iter(predict(folder, ["good film"]))).label in ("good", "bad")


def test_plain_transformers_loads_the_finished_model(tmp_path, done):
    recipe, result = done
    classifier = load_classifier(result.folder)
    model = classifier.pipe.model.cpu()
    kind = "image" if recipe.task.startswith("image") else "text"
    batch = (
        {"pixel_values": torch.randn(2, 3, 32, 32)}
        if kind == "image"
        else {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    )
    folder = tmp_path / "model"
    shutil.copytree(result.folder / "model", folder)
    torch.save(batch, folder / "batch.pt")
    found = logits_elsewhere({"it": (folder, kind)}, tmp_path / "logits.pt")
    with torch.no_grad():
        torch.testing.assert_close(found["it"], model(**batch).logits, rtol=1e-5, atol=1e-6)


def test_the_code_of_the_card_loads_the_model(tmp_path, done):
    recipe, result = done
    card = (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"`{CODE.name}` next to the weights: `trust_remote_code=True` lets it run" in card
    assert "- custom_code\n" in card
    line = next(line for line in card.splitlines() if line.startswith("classify = pipeline("))
    assert line.endswith(', model="FOLDER OR NAME OF THIS MODEL", trust_remote_code=True)')
    code = "import sys\nsys.modules['hf_finetune'] = None\nfrom transformers import pipeline\n"
    code += line.replace("FOLDER OR NAME OF THIS MODEL", str(result.folder / "model"))
    ask = "Image.new('RGB', (40, 40))" if recipe.task.startswith("image") else "'good film'"
    code += f"\nfrom PIL import Image\nprint(classify({ask})[0]['label'])"
    shown = run_plain(code, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() in ("red", "green", "blue", "good", "bad")
    assert "not supported" not in shown.stderr


def test_it_is_exported_without_its_code(tmp_path, done):
    _, result = done
    exported = export(result.folder, format="torch_export", output=tmp_path / "out")
    assert exported.report["largest_difference"] <= 1e-4 * exported.report["largest_logit"]
    assert exported.report["same_answers"] == 1.0
    assert not list((tmp_path / "out").glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))


def test_a_space_brings_the_file_and_lets_it_run(tmp_path, done):
    _, result = done
    write_space(result.folder, tmp_path / "space")
    assert (tmp_path / "space" / "model" / CODE.name).read_bytes() == CODE.read_bytes()
    assert (
        json.loads((tmp_path / "space" / "settings.json").read_text(encoding="utf-8"))["code_of_head"] is True
    )


def test_other_fields_of_a_head_restart_the_stage(tmp_path, text):
    recipe, _ = text
    interrupt(recipe, tmp_path / "run", Stop("head", 5, "begin"))
    changed_recipe = parse_recipe(recipe.model_dump(mode="json"), ["model.head.pool=mean"])
    assert "model.head.pool: 'attention' -> 'mean'" in refusal(
        lambda: quick_run(changed_recipe, tmp_path / "run", resume=True)
    )


def test_the_code_is_published_only_if_it_is_this_packages(tmp_path, done):
    _, result = done
    uploads, _ = collect_uploads(result.folder, "me/dishes")
    assert CODE.name in [upload.name for upload in uploads]
    folder = tmp_path / "run"
    shutil.copytree(result.folder, folder)
    (folder / "model" / CODE.name).write_text("print('other')", encoding="utf-8")
    assert refusal(lambda: collect_uploads(folder, "me/dishes")) == (
        f"{folder / 'model' / CODE.name} must be the file of the installed hf-finetune. Got another file. "
        "Publish with the version of hf-finetune that wrote it: users of the model will run it."
    )


def test_a_plain_run_has_no_code_and_its_card_no_word_of_it(image_run):
    folder = image_run[1].folder / "model"
    assert not list(folder.glob("*.py"))
    assert "trust_remote_code" not in (folder / "README.md").read_text(encoding="utf-8").split("## Recipe")[0]
    assert "auto_map" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory, bert_checkpoint):
    """Return a checkpoint without a classifier, which declares how it pools its tokens."""
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    shutil.copytree(bert_checkpoint, folder)
    BertModel.from_pretrained(bert_checkpoint).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    declared = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(declared), encoding="utf-8")
    return folder


def with_head(recipe, head):
    content = recipe.model_dump(mode="json")
    content["model"]["head"] = head
    return parse_recipe(content)


def without_rates(recipe):
    content = recipe.model_dump(mode="json")
    for stage in content["stages"]:
        stage["lr"] = stage["layer_decay"] = None
    return parse_recipe(content)


WHY = "from the checkpoint's 1_Pooling/config.json"


@pytest.mark.parametrize("asked", ["auto", "without rates"])
def test_a_run_leaves_the_pooling_to_the_checkpoint(tmp_path, reviews, sentence_encoder, asked):
    given = tiny_text_recipe(reviews, sentence_encoder)
    recipe = with_head(given, {"pool": "auto"}) if asked == "auto" else without_rates(given)
    found = plan_stages(recipe)
    assert found.recipe.model.head.pool == "mean"
    assert sum(note.startswith(f"model.head.pool is mean: {WHY}.") for note in found.notes) == 1
    interrupt(recipe, tmp_path / "run", Stop("all", 1, "ctrl-c"))
    folder = quick_run(recipe, tmp_path / "run", resume=True).folder
    assert load_recipe(folder / "recipe.yaml").model.head.pool == "mean"
    assert (folder / "model" / CODE.name).is_file()


def test_with_an_explicit_rate_the_head_stays_linear_and_the_plan_suggests_another(
    tmp_path, reviews, sentence_encoder
):
    recipe = tiny_text_recipe(reviews, sentence_encoder)
    wanted = f"the mean over tokens suits the checkpoint better ({WHY})"
    assert sum(wanted in note for note in plan_stages(recipe).notes) == 1
    for pool in ("own", "auto"):
        assert not any(wanted in note for note in plan_stages(with_head(recipe, {"pool": pool})).notes)
    folder = quick_run(recipe, tmp_path / "run").folder
    assert not (folder / "model" / CODE.name).exists()


def test_a_run_on_images_leaves_the_head_to_the_architecture(tmp_path, squares, timm_checkpoint):
    recipe = with_head(tiny_image_recipe(squares, timm_checkpoint), {"pool": "auto"})
    folder = quick_run(recipe, tmp_path / "run").folder
    assert load_recipe(folder / "recipe.yaml").model.head.pool == "own"
    assert not (folder / "model" / CODE.name).exists()


def test_an_adapter_stays_on_the_architectures_own_head(reviews, sentence_encoder):
    content = without_rates(tiny_text_recipe(reviews, sentence_encoder)).model_dump(mode="json")
    content["model"]["adapter"] = "lora"
    content["stages"][-1]["train"] = "lora"
    assert plan_stages(parse_recipe(content)).recipe.model.head.pool is None


@pytest.mark.parametrize("asked", ["rates", "without rates", "auto", "adapter"])
def test_a_model_with_a_pooling_head_is_trained_further_under_that_head(
    tmp_path, reviews, sentence_encoder, asked
):
    first = quick_run(without_rates(tiny_text_recipe(reviews, sentence_encoder)), tmp_path / "first").folder
    recipe = tiny_text_recipe(reviews, first / "model")
    if asked == "without rates":
        recipe = without_rates(recipe)
    elif asked == "auto":
        recipe = with_head(recipe, {"pool": "auto"})
    elif asked == "adapter":
        content = recipe.model_dump(mode="json")
        content["model"]["adapter"] = "lora"
        content["stages"][-1] |= {"train": "lora", "layer_decay": 1.0}
        recipe = parse_recipe(content)
    folder = quick_run(recipe, tmp_path / "second").folder
    assert load_recipe(folder / "recipe.yaml").model.head.pool == "mean"
    assert (folder / "model" / CODE.name).is_file()


def test_a_plain_classifier_keeps_its_own_head(tmp_path, reviews, sentence_encoder):
    first = quick_run(tiny_text_recipe(reviews, sentence_encoder), tmp_path / "first").folder
    shutil.copytree(sentence_encoder / "1_Pooling", first / "model" / "1_Pooling")
    found = plan_stages(without_rates(tiny_text_recipe(reviews, first / "model")))
    assert found.recipe.model.head.pool is None
