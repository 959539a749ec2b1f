"""A stage with a teacher, in whole runs: its effect, and errors before any file is written."""

import json
import shutil

import pytest
from run_helpers import Stop, changed, quick_run, refusal, tiny_image_recipe, weights_of, with_stages

from hf_finetune.recipe.load import parse_recipe, resolve_paths

NO_CACHE = {"prefix_cache": None}


def taught(recipe, path, **fields):
    return with_stages(recipe, {}, {"teacher": {"path": str(path), **fields}})


def test_a_teacher_without_weight_changes_nothing_and_one_with_weight_does(tmp_path, text_recipe, text_run):
    recipe = text_recipe(speed=NO_CACHE)
    master = text_run[1].folder
    quick_run(recipe, tmp_path / "alone")
    quick_run(taught(recipe, master, weight=0.0), tmp_path / "unheard")
    quick_run(taught(recipe, master, weight=0.9), tmp_path / "heard")
    alone = weights_of(tmp_path / "alone")
    assert changed(alone, weights_of(tmp_path / "unheard")) == set()
    assert changed(alone, weights_of(tmp_path / "heard"))
    first = [tmp_path / name / "stages" / "01-head" / "model.safetensors" for name in ("alone", "heard")]
    assert first[0].read_bytes() == first[1].read_bytes()


def test_a_stage_with_a_teacher_has_no_prefix_cache(tmp_path, image_recipe, image_run):
    quick_run(taught(image_recipe(), image_run[1].folder), tmp_path / "run")
    stages = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["stages"]
    assert stages[1]["prefix_cache"]["reason"] == "the teacher needs the original inputs"
    written = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    assert str(image_run[1].folder) in written


def test_a_run_with_a_teacher_resumes_bit_for_bit_and_only_with_the_same_teacher(
    tmp_path, text_recipe, text_run
):
    master = shutil.copytree(text_run[1].folder, tmp_path / "master")
    recipe = taught(text_recipe(speed=NO_CACHE), master, weight=0.9)
    quick_run(recipe, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "cut", callbacks=[Stop("all", 3, "ctrl-c")])
    config = master / "model" / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text + "\n", encoding="utf-8")
    assert "The checkpoint has changed since the run started" in refusal(
        lambda: quick_run(recipe, tmp_path / "cut", resume=True)
    )
    config.write_text(text, encoding="utf-8")
    quick_run(recipe, tmp_path / "cut", resume=True)
    assert changed(weights_of(tmp_path / "straight"), weights_of(tmp_path / "cut")) == set()


def test_a_teacher_of_other_classes_is_refused(tmp_path, squares, timm_checkpoint, image_run):
    (tmp_path / "two").mkdir()
    for name in ("red", "blue"):
        shutil.copytree(squares / name, tmp_path / "two" / name)
    recipe = taught(tiny_image_recipe(tmp_path / "two", timm_checkpoint), image_run[1].folder)
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == (
        "stages[1].teacher must have the same classes as the data. Got classes 'blue', 'green', 'red'."
    )
    assert not (tmp_path / "run").exists()


def test_a_teacher_with_other_preprocessing_is_refused(tmp_path, image_recipe, image_run):
    recipe = image_recipe()
    larger = parse_recipe(recipe.model_dump(mode="json") | {"seed": 4}, ["data.image_size=48"])
    told = refusal(lambda: quick_run(taught(larger, image_run[1].folder), tmp_path / "run"))
    assert told.startswith(
        "stages[1].teacher must use the same preprocessing as the model. Got different preprocessing."
    )


def test_a_teacher_of_another_task_is_refused(tmp_path, text_recipe, image_run):
    told = refusal(lambda: quick_run(taught(text_recipe(), image_run[1].folder), tmp_path / "run"))
    assert told.endswith("must be a model for text-classification. Got a model for image-classification.")


def test_a_teacher_and_folds_are_refused(tmp_path, text_recipe, text_run):
    recipe = taught(text_recipe(evaluation={"folds": 2}), text_run[1].folder)
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == (
        "evaluation.folds must not be set if a stage has a teacher. Got 2. "
        "The teacher was trained on examples that a fold holds out."
    )


def test_the_path_of_a_teacher_is_resolved_next_to_the_recipe(tmp_path, text_recipe):
    (tmp_path / "large").mkdir()
    found = resolve_paths(taught(text_recipe(), "large"), [tmp_path])
    assert found.stages[1].teacher.path == str(tmp_path / "large")
    assert found.stages[0].teacher is None
    assert (
        resolve_paths(taught(text_recipe(), "nobody/has"), [tmp_path]).stages[1].teacher.path == "nobody/has"
    )
