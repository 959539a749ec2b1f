"""Errors of a run, which leaves no files then; and the output of its plan."""

import shutil

import pytest
from PIL import Image
from run_helpers import refusal, with_stages
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    TrainerCallback,
    ViTImageProcessor,
)

from hf_finetune.errors import InputError
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.models.defaults import TABLE
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.runs.planner import plan as full_plan
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.run import run
from hf_finetune.training.callbacks import DivergedError

# --- Errors, after which no files are left -----------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_refused(tmp_path, text_recipe):
    (tmp_path / "notes.txt").write_text("mine")
    assert refusal(lambda: run(text_recipe(), tmp_path)) == (
        f"--output-dir must be empty or not exist. Got {tmp_path}. Choose another folder."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert refusal(lambda: run(text_recipe(), tmp_path / "notes.txt")) == (
        f"--output-dir must be a folder. Got the file {tmp_path / 'notes.txt'}."
    )


def test_a_folder_inside_a_file_is_refused(tmp_path, text_recipe):
    (tmp_path / "file").write_text("mine")
    assert refusal(lambda: run(text_recipe(), tmp_path / "file" / "run")) == (
        f"--output-dir must be in a writable folder. Got {tmp_path / 'file'}."
    )


class SecondWriter(TrainerCallback):
    """Try to begin, and to resume, a run in the directory of the calling run."""

    def __init__(self, recipe, folder):
        self.recipe, self.folder, self.answers = recipe, folder, []

    def on_train_begin(self, args, state, control, **kwargs):
        before = (self.folder / "manifest.json").read_bytes()
        for resume in (True, False):
            self.answers.append(refusal(lambda resume=resume: run(self.recipe, self.folder, resume=resume)))
        assert (self.folder / "manifest.json").read_bytes() == before


def test_a_second_writer_of_a_run_directory_is_refused(tmp_path, text_recipe):
    recipe = text_recipe()
    recipe = recipe.model_copy(update={"stages": recipe.stages[:1]})
    writer = SecondWriter(recipe, tmp_path / "run")
    run(recipe, tmp_path / "run", callbacks=[writer])
    resumed, begun = writer.answers
    assert resumed.startswith(
        f"--output-dir must not be in use by another run. Got {tmp_path / 'run'}, which process "
    )
    assert begun.startswith(f"--output-dir must be empty or not exist. Got {tmp_path / 'run'}.")
    assert not (tmp_path / "run" / "lock.json").exists()


def test_all_problems_of_recipe_and_data_are_reported_together(tmp_path, text_recipe):
    recipe = with_stages(
        text_recipe(metrics=["acuracy"]),
        {"train": "last:9", "optimizer": "adamww"},
        {"best": {"metric": "rmse"}},
    )
    message = refusal(lambda: run(recipe, tmp_path / "run")).splitlines()
    assert [line.split(" must ")[0] for line in message] == [
        "stages[0].optimizer",
        "metrics[0]",
        "stages[1].best.metric",
        "stages[0].train",
    ]
    assert not (tmp_path / "run").exists()


def test_options_that_need_a_validation_split_are_refused_without_one(tmp_path, text_recipe):
    content = with_stages(text_recipe(), {"early_stopping": 2}, {"best": "loss"}).model_dump(mode="json")
    content["data"]["split"]["validation"] = 0.0
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")) == (
        "stages[0].early_stopping must not be set without a validation split. Set data.split.validation "
        "above 0, or remove the field.\n"
        "stages[1].best.metric must not be set without a validation split. Set data.split.validation above "
        "0, or remove the field."
    )
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_with_a_gap_is_refused_and_nothing_is_written(tmp_path, bert_checkpoint, text_recipe):
    shutil.copytree(bert_checkpoint, tmp_path / "bert")
    weights = load_file(tmp_path / "bert" / "model.safetensors")
    del weights["bert.pooler.dense.bias"]
    save_file(weights, tmp_path / "bert" / "model.safetensors", {"format": "pt"})
    content = {**text_recipe().model_dump(mode="json"), "model": str(tmp_path / "bert")}
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")) == (
        f"model.path must contain every weight outside the head. Got {str(tmp_path / 'bert')!r}. "
        "It lacks bert.pooler.dense.bias. Add the names to model.allow_missing if this is intended."
    )
    assert not (tmp_path / "run").exists()


def test_truncated_weights_are_refused_and_nothing_is_written(tmp_path, bert_checkpoint, text_recipe):
    shutil.copytree(bert_checkpoint, tmp_path / "bert")
    path = tmp_path / "bert" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    content = {**text_recipe().model_dump(mode="json"), "model": str(tmp_path / "bert")}
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")).startswith(
        f"model.path must contain intact weight files. Got {str(tmp_path / 'bert')!r}. "
    )
    assert not (tmp_path / "run").exists()


def test_an_image_size_that_the_checkpoint_cannot_take_is_refused_and_nothing_is_written(
    tmp_path, tiny_model, image_recipe, squares
):
    tiny_model("vit").save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    content = image_recipe().model_dump(mode="json")
    content["model"] = str(tmp_path / "vit")
    content["data"]["image_size"] = 48
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")) == (
        "data.image_size must be a size that the model can process. Got 48. "
        "Model error: Input image size (48*48) doesn't match model (32*32)."
    )
    assert not (tmp_path / "run").exists()


def test_the_image_size_of_a_timm_checkpoint_is_that_of_training_and_inference(tmp_path, image_recipe):
    sizes = set()

    class Size(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            kwargs["model"].register_forward_pre_hook(
                lambda module, args, inputs: sizes.add(tuple(inputs["pixel_values"].shape[2:])),
                with_kwargs=True,
            )

    content = with_stages(image_recipe(), *[{"epochs": None, "max_steps": 1}] * 2).model_dump(mode="json")
    content["data"]["image_size"] = 40
    run(parse_recipe(content), tmp_path / "run", callbacks=[Size()])
    assert sizes == {(40, 40)}
    classifier = load_classifier(tmp_path / "run" / "model")
    pixels = classifier.pipe.image_processor(Image.new("RGB", (90, 60)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 40, 40)


def test_divergence_is_reported(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {"lr": 1e38, "clip": None, "optimizer": "sgd"}, {})
    with pytest.raises(DivergedError) as caught:
        run(recipe, tmp_path / "run")
    assert str(caught.value).startswith("Stage 'head' diverged: the loss is ")
    checkpoints = (tmp_path / "run" / "stages" / "01-head").glob("checkpoint-*")
    assert [path.name for path in checkpoints] == ["checkpoint-0"]


# --- The plan ---------------------------------------------------------------------------------------------------


def test_the_plan_describes_the_run_and_writes_nothing(tmp_path, image_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, result = image_run
    report = plan_stages(recipe)
    assert report.examples == 24
    for plan, entry in zip(report.plan.stages, result.metrics["stages"], strict=True):
        assert (plan.steps, plan.trainable_size) == (entry["steps"], entry["trainable_parameters"])
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_the_data_counts_two_labels(text_recipe):
    content = text_recipe().model_dump(mode="json")
    content["data"]["path"] = "nobody/has-this"
    report = plan_stages(parse_recipe(content))
    assert report.examples is None
    assert [stage.steps for stage in report.plan.stages] == [None, None]
    assert report.notes[0] == (
        "The data 'nobody/has-this' is not available: the plan assumes 2 labels, and the number of steps is "
        "unknown."
    )
    assert [note.split(",")[0] for note in report.notes[1:]] == [
        "stages[0].lr is 0.05",
        "stages[1].lr is 0.005",
    ]


@pytest.mark.parametrize("name", ["photoz", "phots", "photo", "Photos"])
def test_a_misspelled_data_folder_is_reported_with_the_other_problems(
    text_recipe, tmp_path, monkeypatch, name
):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    content = text_recipe(metrics=["acuracy"]).model_dump(mode="json")
    content["data"]["path"] = name
    with pytest.raises(InputError) as found:
        plan_stages(parse_recipe(content))
    assert {problem.place for problem in found.value.problems} == {"data.path", "metrics[0]"}
    assert f"Got {name!r}. Nearest: '{tmp_path / 'photos'}'." in str(found.value)


def test_defaults_of_the_checkpoint_are_filled_in_and_reported(text_recipe):
    content = text_recipe().model_dump(mode="json")
    content["data"]["path"] = "nobody/has-this"
    content["model"]["head"] = {"pool": "auto"}
    content["stages"] = [
        {"train": "head", "fit": "auto", "epochs": 1},
        {"train": "head", "epochs": 1},
        {"train": "auto", "epochs": 1},
    ]
    report = plan_stages(parse_recipe(content))
    row = next(row for row in TABLE if row.family == "small BERTs")
    assert [(stage.train, stage.fit, stage.lr, stage.layer_decay) for stage in report.recipe.stages] == [
        ("head", "logistic_regression", None, 1.0),
        ("head", "gradient", row.head_lr, 1.0),
        (row.train, "gradient", row.lr, row.layer_decay),
    ]
    assert parse_recipe(report.recipe.model_dump(mode="json")) == report.recipe
    assert report.recipe.model.head.pool == row.pooling
    assert report.notes[1:] == (
        "model.head.pool is own: the input of the architecture's own head.",
        f"stages[2].train is {row.train}: default of {row.family}.",
        "stages[0].fit: auto is logistic_regression, because the head is one linear layer.",
        f"stages[1].lr is {row.head_lr:g}: default of {row.family} for a stage that trains the head alone.",
        f"stages[2].lr is {row.lr:g}, layer_decay {row.layer_decay:g}: default of {row.family} for a stage that "
        "trains the backbone.",
    )


@pytest.mark.parametrize("spoil", ["weights", "image size", "folds", "teacher", "data"])
def test_the_plan_refuses_whatever_the_run_refuses(
    tmp_path, tiny_model, bert_checkpoint, image_recipe, text_recipe, spoil
):
    if spoil == "weights":
        shutil.copytree(bert_checkpoint, tmp_path / "bert")
        (tmp_path / "bert" / "model.safetensors").write_bytes(b"cut off")
        recipe = text_recipe(model=str(tmp_path / "bert"))
    elif spoil == "image size":
        tiny_model("vit").save_pretrained(tmp_path / "vit")
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
        content = image_recipe(model=str(tmp_path / "vit")).model_dump(mode="json")
        content["data"]["image_size"] = 48
        recipe = parse_recipe(content)
    elif spoil == "folds":
        recipe = text_recipe(evaluation={"folds": 100})
    elif spoil == "teacher":
        recipe = with_stages(text_recipe(), {"teacher": {"path": "./no-teacher"}}, {})
    else:
        content = text_recipe().model_dump(mode="json")
        content["data"]["path"] = str(tmp_path / "none.csv")
        recipe = parse_recipe(content)
    message = refusal(lambda: full_plan(recipe))
    assert message == refusal(lambda: run(recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_layout_of_the_plan_is_that_of_the_model(image_run):
    recipe, result = image_run
    model = AutoModelForImageClassification.from_pretrained(result.folder / "model")
    assert read_layout(model) == plan_stages(recipe).plan.layout
    assert head_names(model) == list(plan_stages(recipe).plan.stages[0].trainable)
    assert dump_recipe(recipe) == (result.folder / "recipe.yaml").read_text(encoding="utf-8")
