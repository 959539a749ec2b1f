"""Whole runs on a model and data from the Hub, published at their end, and fine-tuned further."""

import json

import pytest
import yaml
from hub_helpers import STAGE, cli, on_two_processes, python, recipe_of, set_state
from safetensors.numpy import load_file

from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.runs.cross_validation import recipe_of_fold


@pytest.fixture
def stocked(hub, bert_checkpoint, reviews):
    """Create repositories of a tiny model and tiny data on the Hub, both private."""
    files = {path.name: path.read_bytes() for path in bert_checkpoint.iterdir()}
    hub.state.add_repo("me/tiny", private=True, files=files)
    hub.state.add_repo("me/reviews", "datasets", private=True, files={"train.csv": reviews.read_bytes()})
    return hub


def write_recipe(path, model="me/tiny", **changes):
    """Write a recipe."""
    content = {
        "task": "text-classification",
        "model": model,
        "data": {"path": "me/reviews", "split": {"validation": 0.15, "test": 0.15}},
        "stages": [STAGE],
        **changes,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def state_of(run):
    return json.loads((run / "manifest.json").read_text(encoding="utf-8"))["state"]


PREDICT = """
import json, sys
from transformers import pipeline
sys.modules["hf_finetune"] = None
texts = ["good film great", "bad film poor", "the plot"]
for model in sys.argv[1:]:
    pipe = pipeline("text-classification", model=model, top_k=None)
    print(json.dumps([sorted((each["label"], each["score"]) for each in found) for found in pipe(texts)]))
"""


def test_model_and_data_from_the_hub_and_the_result_back_to_it(stocked, tmp_path):
    recipe = write_recipe(tmp_path / "first.yaml", publish={"to": "me/first", "tag": "v1"})
    run = tmp_path / "run"
    done = cli("run", recipe, "--output-dir", run)
    first = stocked.state.model("me/first")
    assert f"Published as {stocked.state.url}/me/first, commit {first.head.oid[:12]}." in done.stderr
    assert state_of(run) == "done" and first.private and first.tags == {"v1": first.head.oid}
    assert first.head.files["model.safetensors"].content == (run / "model" / "model.safetensors").read_bytes()
    there, here = map(json.loads, python(PREDICT, "me/first", run / "model").stdout.splitlines())
    assert there == here and len(there) == 3
    published = yaml.safe_load(first.head.files["recipe.yaml"].content)
    assert (published["model"]["path"], published["data"]["path"], published["publish"]) == (
        "me/tiny",
        "me/reviews",
        None,
    )
    # the published model is the checkpoint of the next recipe
    stages = [{**STAGE, "best": None}]  # the trained weights, even if they are not better
    further = write_recipe(tmp_path / "second.yaml", "me/first", stages=stages, publish="me/second")
    cli("run", further, "--output-dir", tmp_path / "further")
    before = load_file(run / "model" / "model.safetensors")
    after = load_file(tmp_path / "further" / "model" / "model.safetensors")
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert abs(before["classifier.weight"] - after["classifier.weight"]).max() < 0.5
    assert set(stocked.state.model("me/second").head.files) == set(first.head.files)
    # and the published recipe runs as it is
    again = tmp_path / "again.yaml"
    again.write_bytes(first.head.files["recipe.yaml"].content)
    cli("run", again, "--output-dir", tmp_path / "again")
    repeated = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert all((before[name] == repeated[name]).all() for name in before)


def test_a_run_is_not_lost_when_it_cannot_be_published(stocked, tmp_path):
    stocked.faults.add("POST", "/repos/create", 403, message="No rights here")
    recipe = write_recipe(tmp_path / "first.yaml", publish={"to": "us/first", "revision": "try"})
    run = tmp_path / "run"
    done = cli("run", recipe, "--output-dir", run, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-3:] == [
        "The run is finished, but its model was not published:",
        "  The Hub token must have write access to us/first. Got 403, No rights here. Use a token with "
        "write access to it, or another namespace.",
        f"To publish it later: hf-finetune publish {run} --to us/first --private --revision try",
    ]
    assert state_of(run) == "done" and "Test:" in done.stdout
    stocked.faults.clear()
    cli("publish", run, "--to", "us/first", "--private", "--revision", "try", "--yes")
    assert "try" in stocked.state.model("us/first").branches


def test_one_process_of_two_publishes(stocked, tmp_path):
    recipe = write_recipe(tmp_path / "first.yaml", publish="me/first")
    on_two_processes(tmp_path, "run", recipe, "--output-dir", tmp_path / "run")
    first = stocked.state.model("me/first")
    assert len(first.commits) == 2 and len(stocked.state.requests("POST", "/commit/")) == 1


def test_names_that_the_hub_does_not_have(stocked, tmp_path):
    done = cli("run", write_recipe(tmp_path / "r.yaml", "me/nothing"), check=False, cwd=tmp_path)
    assert done.returncode == 2 and "me/nothing" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_only_the_config_of_a_model_that_is_not_there_is_asked_for(stocked, tmp_path):
    cli("plan", write_recipe(tmp_path / "r.yaml", "me/nothing"), check=False, cwd=tmp_path)
    asked = [seen.path for seen in stocked.state.requests("HEAD") if "me/nothing" in seen.path]
    assert asked and all(path.endswith("/config.json") for path in asked)


@pytest.mark.parametrize(
    ("name", "repair"), [("reviewz", "Nearest: '{here}/reviews'."), ("me/gone", "It does not exist in")]
)
def test_data_missing_on_the_hub_is_reported_with_the_other_problems(stocked, tmp_path, name, repair):
    (tmp_path / "reviews").mkdir()
    recipe = write_recipe(tmp_path / "r.yaml", data={"path": name})
    for command in ("plan", "run"):
        done = cli(command, recipe, "metrics=[acuracy]", check=False, cwd=tmp_path)
        told = " ".join(done.stderr.split())
        assert done.returncode == 2 and "2 problems" in told and "'acuracy'" in told
        assert f"data.path must be a dataset on the Hub. Got '{name}'." in told
        assert repair.format(here=tmp_path) in told


# --- The field of the recipe ------------------------------------------------------------------------------------


def test_the_recipe_names_the_repository_to_publish_to():
    made = recipe_of("me/tiny", "me/reviews", publish="me/first")
    assert made.publish is not None
    assert (made.publish.to, made.publish.private, made.publish.revision, made.publish.tag) == (
        "me/first",
        True,
        None,
        None,
    )
    assert recipe_of("me/tiny", "me/reviews").publish is None
    assert parse_recipe(yaml.safe_load(dump_recipe(made))) == made


def test_folds_are_not_published():
    made = recipe_of("me/tiny", "me/reviews", publish="me/first", evaluation={"folds": 3})
    assert recipe_of_fold(made, 1, 3).publish is None


def test_where_to_may_change_while_a_run_is_interrupted(finished):
    from hf_finetune.runs.changes import find_changes
    from hf_finetune.training.manifest import read_manifest

    prints = {"data": "same", "checkpoint": "same"}
    set_state(finished, fingerprints=prints)
    manifest = read_manifest(finished / "manifest.json")
    now = parse_recipe({**manifest.recipe, "publish": "me/first"})
    assert not find_changes(manifest, now, prints)
    assert find_changes(manifest, now.model_copy(update={"seed": 3}), prints)


def test_a_column_of_data_on_the_hub_makes_slices(stocked, tmp_path):
    rows = [
        f"{'good' if index % 2 else 'bad'} film {index},{index % 2},{'ab'[index % 4 // 2]}"
        for index in range(40)
    ]
    table = "\n".join(["text,label,shop", *rows, ""])
    stocked.state.add_repo("me/sliced", "datasets", private=True, files={"train.csv": table.encode()})
    data = {"path": "me/sliced", "split": {"validation": 0, "test": 0.3}}
    recipe = write_recipe(tmp_path / "r.yaml", data=data, evaluation={"slices": ["shop"]})
    cli("run", recipe, "--output-dir", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    slices = metrics["slices"]["shop"]["slices"]
    assert {row["name"] for row in slices} == {"a", "b"}
    assert sum(row["examples"] for row in slices) == 12
