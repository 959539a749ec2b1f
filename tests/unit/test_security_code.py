"""Code that comes with a recipe, a metric, a checkpoint or a run does not run unless the caller allows it."""

import io
import zipfile
from pathlib import Path

import evaluate
import pytest
import torch
from evaluation_helpers import save_bert
from security_helpers import (
    METRIC,
    Canary,
    change_json,
    image_recipe,
    refused,
    save_own_model,
    save_own_processor,
    save_own_tokenizer,
    text_recipe,
)
from transformers import BertTokenizerFast

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import load_check_target
from hf_finetune.errors import InputError
from hf_finetune.evaluation import evaluate_run
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.finished import load_finished
from hf_finetune.evaluation.metrics import check_metric_names, compute_metrics
from hf_finetune.evaluation.predict import predict
from hf_finetune.models.build import build_model, load_processor, read_config
from hf_finetune.models.export import export_model
from hf_finetune.models.head_spec import CODE, set_head
from hf_finetune.models.masked_models import build_masked_model
from hf_finetune.publishing.demo import prepare_page
from hf_finetune.publishing.export import export
from hf_finetune.publishing.exported_pipeline import example_inputs, export_metadata
from hf_finetune.publishing.graph_export import PROGRAM_FILE, load_program_classifier, write_program
from hf_finetune.publishing.space import write_space
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.runs.prepare import plan_stages, prepare_run
from hf_finetune.runs.preview import preview
from hf_finetune.runs.run import run
from hf_finetune.runs.start import load_teachers
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks import MODALITIES, TASKS

UNLESS = "unless --trust-remote-code is given"


@pytest.fixture
def canary(tmp_path):
    return Canary(tmp_path / "canary")


def would_run(code, folder):
    return f"It would run {code}, from {folder}. Read the code first."


# metrics


def test_a_metric_script_runs_only_when_allowed(tmp_path, monkeypatch, bert_checkpoint, reviews, canary):
    monkeypatch.chdir(tmp_path)
    script = canary.script(tmp_path / "share" / "share.py", METRIC)
    recipe = text_recipe(str(bert_checkpoint), reviews, metrics=["accuracy", "./share"])
    message = (
        f"metrics[1] must be a metric of this package for the label type single_label {UNLESS}. Got './share'. "
        f"With the option, evaluate.load runs the script {str(script)!r}."
    )
    assert refused(plan_stages, recipe) == message
    assert refused(prepare_run, recipe, start_processes()) == message
    assert refused(preview, recipe, tmp_path / "preview.html") == message
    assert refused(run, recipe, tmp_path / "run") == message
    assert not canary.ran
    assert not (tmp_path / "run").exists()
    plan_stages(recipe, trust_remote_code=True)
    assert canary.ran
    assert refused(plan_stages, recipe) == message  # a permission is not permanent


@pytest.mark.parametrize("name", ["share.py", "share", "../work/share", "{}/share", "./share/share.py"])
def test_no_spelling_of_a_script_path_bypasses_the_check(tmp_path, monkeypatch, canary, name):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    canary.script(Path("share.py"))
    canary.script(Path("share/share.py"))
    message = refused(check_metric_names, [name.format(tmp_path / "work")], "single_label")
    assert f"must be a metric of this package for the label type single_label {UNLESS}" in message
    assert "share.py'" in message
    assert not canary.ran


def test_a_script_in_the_cache_of_evaluate_is_not_run_either(monkeypatch, canary):
    folder = Path(evaluate.config.HF_MODULES_CACHE) / "evaluate_modules" / "metrics" / "cached" / ("a" * 64)
    canary.script(folder / "cached.py", METRIC)
    assert refused(check_metric_names, ["cached"], "single_label").endswith(
        "With the option, evaluate.load runs the script 'cached' of the Hub, or its cached copy."
    )
    assert not canary.ran


def test_a_stage_does_not_choose_by_a_script(bert_checkpoint, reviews, canary, tmp_path):
    script = canary.script(tmp_path / "share.py", METRIC)
    stage = {"name": "head", "train": "head", "epochs": 1, "lr": 0.01, "best": str(script)}
    message = refused(plan_stages, text_recipe(str(bert_checkpoint), reviews, stages=[stage]))
    assert message.startswith(
        f"stages[0].best.metric must be a metric of this package for the label type single_label {UNLESS}"
    )
    assert not canary.ran


def test_a_metric_that_nobody_allowed_is_not_computed(tmp_path, canary):
    script = canary.script(tmp_path / "share.py", METRIC)
    scores, labels = torch.eye(2).numpy(), torch.arange(2).numpy()
    examples = ScoredExamples(labels, scores, "single_label")
    assert refused(compute_metrics, [str(script)], examples) == (
        f"metrics must be a metric of this package {UNLESS}. Got {str(script)!r}."
    )
    assert not canary.ran


# a checkpoint of a recipe


MODEL_CODE = (
    "modeling_own.py (OwnConfig, named in config.json), "
    "modeling_own.py (OwnForSequenceClassification, named in config.json)"
)


def test_code_of_a_model_runs_only_when_allowed(tmp_path, reviews, canary):
    folder = save_own_model(tmp_path / "own", canary)
    recipe = text_recipe(str(folder), reviews)
    message = (
        f"model.path must not need custom code {UNLESS}. Got {str(folder)!r}. {would_run(MODEL_CODE, folder)}"
    )
    assert refused(plan_stages, recipe) == message
    assert refused(prepare_run, recipe, start_processes()) == message
    assert refused(build_masked_model, str(folder), "AutoModelForMaskedLM") == message
    assert not canary.ran
    with pytest.raises(
        InputError, match="must be a checkpoint from which transformers can build a text classifier"
    ):
        plan_stages(recipe, trust_remote_code=True)  # its config is read, but its class cannot be trained
    assert canary.ran


@pytest.mark.defends(
    "hf_finetune.runs.checkpoint:check_declared",
    why="A recipe declares that it needs code, but does not grant the permission",
)
def test_a_recipe_declares_that_it_needs_code_and_grants_nothing(tmp_path, reviews, canary):
    folder = save_own_model(tmp_path / "own", canary)
    recipe = text_recipe({"path": str(folder), "trust_remote_code": True}, reviews)
    message = (
        "model.trust_remote_code must be combined with --trust-remote-code, which permits the code to run. "
        f"{would_run(MODEL_CODE, folder)}"
    )
    assert refused(plan_stages, recipe) == message
    assert refused(preview, recipe, tmp_path / "preview.html") == message
    assert refused(run, recipe, tmp_path / "run") == message
    assert not canary.ran


def test_a_declaration_without_code_is_reported(bert_checkpoint, reviews):
    recipe = text_recipe({"path": str(bert_checkpoint), "trust_remote_code": True}, reviews)
    assert refused(plan_stages, recipe) == (
        "model.trust_remote_code must be combined with --trust-remote-code, which permits the code to run. "
        f"{str(bert_checkpoint)!r} needs no custom code: remove the field."
    )
    assert plan_stages(recipe, trust_remote_code=True).plan.stages


def test_code_of_another_repository_is_named_with_it(tmp_path, reviews, canary):
    folder = save_own_model(tmp_path / "own", canary)
    change_json(folder / "config.json", auto_map={"AutoConfig": "somebody/else--modeling_own.OwnConfig"})
    assert would_run(
        "modeling_own.py of 'somebody/else' (OwnConfig, named in config.json)", folder
    ) in refused(plan_stages, text_recipe(str(folder), reviews))


@pytest.mark.defends(
    "hf_finetune.models.build:check_tokenizer",
    why="A tokenizer whose code may not run is not replaced silently",
)
def test_code_of_a_tokenizer_runs_only_when_allowed(tmp_path, reviews, canary):
    folder = save_own_tokenizer(tmp_path / "own", canary)
    recipe = text_recipe(str(folder), reviews)
    code = "tokenization_own.py (OwnTokenizerFast, named in tokenizer_config.json)"
    message = f"model.path must not need custom code {UNLESS}. Got {str(folder)!r}. {would_run(code, folder)}"
    assert refused(prepare_run, recipe, start_processes()) == message
    assert refused(load_classifier, folder) == message.replace("model.path", str(folder))
    assert not canary.ran
    prepared = prepare_run(recipe, start_processes(), trust_remote_code=True)
    assert type(prepared.processor).__name__ == "OwnTokenizerFast"
    assert canary.ran


def test_code_of_an_image_processor_runs_only_when_allowed(tmp_path, squares, canary):
    folder = save_own_processor(tmp_path / "own", canary)
    recipe = image_recipe(str(folder), squares)
    code = "processing_own.py (OwnImageProcessor, named in preprocessor_config.json)"
    assert refused(prepare_run, recipe, start_processes()) == (
        f"model.path must not need custom code {UNLESS}. Got {str(folder)!r}. {would_run(code, folder)}"
    )
    assert not canary.ran
    prepared = prepare_run(recipe, start_processes(), trust_remote_code=True)
    assert type(prepared.processor).__name__ == "OwnImageProcessor"
    assert canary.ran


def test_a_checkpoint_cannot_grant_itself_the_permission(tmp_path, reviews, canary):
    folder = save_own_tokenizer(tmp_path / "own", canary)
    canary.script(folder / "modeling_own.py")
    auto_map = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForSequenceClassification": "modeling_own.Own",
    }
    grants = {
        "trust_remote_code": True,
        "custom_pipelines": {"text-classification": {"impl": "modeling_own.Own"}},
    }
    change_json(folder / "config.json", auto_map=auto_map, **grants)
    change_json(folder / "tokenizer_config.json", **grants)
    for call in (load_classifier, load_finished, lambda path: load_processor(str(path), MODALITIES["text"])):
        refused(call, folder)
    refused(prepare_run, text_recipe(str(folder), reviews), start_processes())
    assert not canary.ran


def test_a_model_that_transformers_knows_is_loaded_without_the_code_next_to_it(tmp_path, reviews, canary):
    folder = save_bert(tmp_path / "known")
    canary.script(folder / "modeling_own.py")
    change_json(
        folder / "config.json",
        auto_map={
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForSequenceClassification": "modeling_own.Own",
        },
    )
    assert load_classifier(folder).label_names == ("bad", "good")
    assert plan_stages(text_recipe(str(folder), reviews)).plan.stages
    assert not canary.ran


def test_the_code_of_a_head_is_this_packages_own(tmp_path, canary):
    source = save_bert(tmp_path / "source")
    config = read_config(str(source), ("bad", "good"), "single_label")
    set_head(config, {"type": "mlp", "hidden": (8,), "dropout": 0.0})
    model = build_model(str(source), config, task=TASKS["text-classification"]).model
    export_model(model, BertTokenizerFast.from_pretrained(source), tmp_path / "own")
    canary.script(tmp_path / "own" / CODE.name, CODE.read_text(encoding="utf-8"))
    assert load_classifier(tmp_path / "own").label_names == ("bad", "good")
    read_config(str(tmp_path / "own"), ("bad", "good"), "single_label")
    assert not canary.ran


def test_a_doctor_runs_no_code(tmp_path, reviews, canary):
    folder = save_own_tokenizer(tmp_path / "own", canary)
    assert "It would run tokenization_own.py" in refused(load_check_target, text_recipe(str(folder), reviews))
    assert not canary.ran
    load_check_target(text_recipe(str(folder), reviews), trust_remote_code=True)
    assert canary.ran


def test_several_tasks_run_no_code(tmp_path, bert_checkpoint, reviews, canary):
    script = canary.script(tmp_path / "share.py", METRIC)
    own = save_own_model(tmp_path / "own", canary)
    content = {
        "task": "multi-task",
        "model": str(bert_checkpoint),
        "tasks": {
            "first": {"task": "text-classification", "data": str(reviews), "metrics": [str(script)]},
            "second": {"task": "text-classification", "data": str(reviews)},
        },
        "stages": [{"name": "head", "train": "head", "epochs": 1, "lr": 0.01, "best": f"first/{script}"}],
    }
    message = refused(plan_stages, parse_recipe(content))
    assert (
        f"tasks.first.metrics[0] must be a metric of this package for the label type single_label {UNLESS}"
        in message
    )
    assert (
        f"stages[0].best.metric must be a metric of this package for the label type single_label {UNLESS}"
        in message
    )
    message = refused(prepare_run, parse_recipe({**content, "model": str(own)}), start_processes())
    assert f"model.path must not need custom code {UNLESS}" in message
    assert not canary.ran


def test_code_of_a_teacher_runs_only_when_allowed(tmp_path, bert_checkpoint, reviews, canary):
    teacher = save_own_model(tmp_path / "teacher", canary)
    stage = {"name": "head", "train": "head", "epochs": 1, "lr": 0.01, "teacher": str(teacher)}
    recipe = text_recipe(str(bert_checkpoint), reviews, stages=[stage])
    prepared = prepare_run(recipe, start_processes())
    assert refused(load_teachers, prepared) == (
        f"{teacher} must not need custom code {UNLESS}. Got {str(teacher)!r}. "
        f"{would_run(MODEL_CODE, teacher)}"
    )
    assert not canary.ran
    with pytest.raises(InputError, match="must use the same preprocessing as the model"):
        load_teachers(prepare_run(recipe, start_processes(), trust_remote_code=True))
    assert canary.ran


# a finished run, and its exports


@pytest.fixture
def foreign_run(tmp_path, reviews, canary):
    """Return a run directory whose recipe declares the permission that its model's folder needs."""
    folder = tmp_path / "run"
    save_own_model(folder / "model", canary)
    recipe = text_recipe({"path": str(folder / "model"), "trust_remote_code": True}, reviews)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.defends(
    "hf_finetune.evaluation.finished:check_declared",
    why="A run directory does not grant itself permission to run code",
)
def test_a_run_cannot_grant_itself_the_permission(tmp_path, foreign_run, canary):
    message = (
        "model.trust_remote_code must be combined with --trust-remote-code, which permits the code to run. "
        f"{would_run(MODEL_CODE, foreign_run / 'model')}"
    )
    assert refused(evaluate_run.evaluate, foreign_run) == message
    assert refused(predict, foreign_run, ["good film"]) == message
    assert refused(prepare_page, foreign_run, tmp_path) == message
    assert refused(export, foreign_run, format="torch_export") == message
    assert refused(write_space, foreign_run, tmp_path / "space") == (
        "--space must not be set for a model with custom code."
    )
    assert refused(load_classifier, foreign_run) == (
        f"{foreign_run / 'model'} must not need custom code {UNLESS}. Got {str(foreign_run / 'model')!r}. "
        f"{would_run(MODEL_CODE, foreign_run / 'model')}"
    )
    assert not canary.ran


def test_the_caller_of_a_run_grants_it(tmp_path, foreign_run, canary):
    (prediction,) = predict(foreign_run, ["good film"], trust_remote_code=True)
    assert prediction.label in ("bad", "good")
    assert canary.ran
    assert evaluate_run.evaluate(foreign_run, trust_remote_code=True).label_names == ("bad", "good")


@pytest.mark.slow
def test_a_runs_metrics_are_gated_when_it_is_evaluated_again(tmp_path, reviews, canary):
    folder = tmp_path / "run"
    save_bert(folder / "model")
    script = canary.script(tmp_path / "share.py", METRIC)
    recipe = text_recipe(str(folder / "model"), reviews, metrics=[str(script)])
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert f"Got {str(script)!r}" in refused(evaluate_run.evaluate, folder)
    assert not canary.ran
    assert str(script) in evaluate_run.evaluate(folder, trust_remote_code=True).metrics
    assert canary.ran


@pytest.mark.slow
def test_an_exported_program_is_loaded_only_when_allowed(tmp_path, canary):
    folder = save_bert(tmp_path / "model")
    classifier = load_classifier(folder)
    batch = example_inputs(classifier)
    file = folder / PROGRAM_FILE
    write_program(classifier.pipe.model.eval(), classifier.modality, batch, file, export_metadata(classifier))
    _plant(file, canary)
    assert refused(load_program_classifier, folder) == (
        f"{file} must be loaded with trust_remote_code=True. torch.export.load unpickles "
        "model.pt2, which can run any code. ONNX files contain no code."
    )
    assert not canary.ran
    with pytest.raises(
        (AssertionError, TypeError)
    ):  # torch 2.14 has run it, and stumbles over its own warning
        load_program_classifier(folder, trust_remote_code=True)
    assert canary.ran


def _plant(program, canary):
    """Replace a program's example inputs by a pickle that runs code."""
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if "sample_inputs" in name]
    buffer = io.BytesIO()
    torch.save(canary, buffer)
    members[name] = buffer.getvalue()
    with zipfile.ZipFile(program, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
