"""Tokens and paths of this machine are never published: planted ones are reported, and not uploaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from hub_helpers import received, refused
from safetensors.numpy import save_file

from hf_finetune.publishing.hub import plan_publication, publish
from hf_finetune.publishing.upload_plan import Upload, check_no_secrets, is_allowed

SECRET = "s3cr3t-value-of-a-key"
SAYS = "Remove it and publish again; nothing was sent."


def add_line(run, name, line):
    path = run / "model" / name
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    return f"{name}, line {len(path.read_text(encoding='utf-8').splitlines())}"


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json", "config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "HF_TOKEN", "MY_SECRET", "gitlab_token"])
def test_the_value_of_a_secret_variable(hub, finished, monkeypatch, name, variable):
    monkeypatch.setenv(variable, SECRET)
    place = add_line(finished, name, f'"made with {SECRET}."')
    text = refused(plan_publication, finished, "me/reviews")
    assert text == f"{place} must not contain a secret. Got the value of {variable}. {SAYS}"
    assert not hub.state.seen


def test_a_token_of_the_hub(hub, finished):
    place = add_line(finished, "README.md", "login(hf_abcdefghijklmnopqrstuvwxyzABCDEFGH)")
    text = refused(plan_publication, finished, "me/reviews")
    assert text == f"{place} must not contain a secret. Got a token of the Hub. {SAYS}"
    assert not hub.state.seen


@pytest.mark.parametrize("which", ["home", "cwd", "run", "model", "data"])
def test_a_folder_of_this_machine(hub, finished, monkeypatch, tmp_path, bert_checkpoint, which):
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "somebody"))
    monkeypatch.chdir(tmp_path)
    folder = {
        "home": tmp_path / "home" / "somebody",
        "cwd": tmp_path,
        "run": finished,
        "model": bert_checkpoint,
        "data": finished.parent / "secret-data" / "reviews.csv",
    }[which]
    place = add_line(finished, "README.md", f"See file://{folder}/more.txt for it.")
    text = refused(plan_publication, finished, "me/reviews")
    assert text == f"{place} must not contain a local path. Got {str(folder)!r}. {SAYS}"
    assert not hub.state.seen


def test_all_locations_are_reported_together(hub, finished, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    places = [add_line(finished, name, SECRET) for name in ("README.md", "config.json")]
    places.append(add_line(finished, "README.md", f"{finished}/model"))
    text = refused(plan_publication, finished, "me/reviews")
    assert all(place in text for place in places) and SECRET not in text


def test_very_many_places_are_counted(hub, finished):
    for _ in range(15):
        add_line(finished, "README.md", str(finished))
    text = refused(plan_publication, finished, "me/reviews")
    assert len(text.splitlines()) == 11 and text.endswith("must not contain secrets or local paths.")


def test_the_header_of_weights_is_read_too(hub, finished):
    weights = finished / "model" / "model.safetensors"
    save_file({"weight": np.zeros(3)}, weights, metadata={"trained in": str(finished)})
    text = refused(plan_publication, finished, "me/reviews")
    assert text.startswith("model.safetensors, line 1 must not contain a local path. Got ")


def test_secrets_in_unpublished_files_are_not_uploaded(hub, finished, monkeypatch):
    """It is no error either: these files are not published."""
    monkeypatch.setenv("MY_KEY", SECRET)
    planted = f"{SECRET} {finished} {Path.home()}"
    inside = [
        "notes.txt",
        "training_args.bin",
        ".env",
        "trainer_state.json",
        "run.sh",
        "model.safetensors.bak",
    ]
    beside = ["log.txt", "metrics.json", "report.html", ".env"]
    for place in [finished / "model" / name for name in inside] + [finished / name for name in beside]:
        place.write_text(planted, encoding="utf-8")
    (finished / "model" / "checkpoint-3").mkdir()
    (finished / "model" / "checkpoint-3" / "config.json").write_text(planted, encoding="utf-8")
    (finished / "model" / "vocab.txt").symlink_to(finished / "log.txt")
    planned = plan_publication(finished, "me/reviews")
    assert {*inside, "checkpoint-3", "vocab.txt"} <= set(planned.skipped)
    publish(planned)
    arrived = received(hub)
    assert b"model.safetensors" in arrived
    for text in (SECRET, str(finished), str(finished.parent)):
        assert text.encode() not in arrived


def test_all_that_arrives_is_searched_by_these_tests(hub, finished):
    """The search of the other tests covers names, small files in base64, and weights."""
    publish(plan_publication(finished, "me/reviews"))
    arrived = received(hub)
    assert (finished / "model" / "config.json").read_bytes() in arrived
    assert (finished / "model" / "model.safetensors").read_bytes() in arrived
    assert b"/api/models/me/reviews/commit/main" in arrived


@pytest.mark.parametrize(
    "text",
    [
        "hf_finetune and hf_hub_download are no tokens",
        "https://example.org/home/somebody/model",
        "/home/somebody-else/model and ./home/somebody",
        "the values 1, true and short",
    ],
)
def test_text_that_resembles_a_secret_is_accepted(monkeypatch, tmp_path, text):
    monkeypatch.setenv("HOME", "/home/somebody")
    environment = {"A_KEY": "1", "B_TOKEN": "true", "C_SECRET": "short", "MONKEY": "finetune and"}
    content = text.encode()
    check_no_secrets([Upload("README.md", content, len(content))], tmp_path / "run", environment)


def test_a_path_is_found_as_json_writes_it(monkeypatch, tmp_path):
    folder = tmp_path / "Jörg"
    content = json.dumps({"path": str(folder / "model")}).encode()
    assert b"\\u00f6" in content
    text = refused(check_no_secrets, [Upload("config.json", content, len(content))], folder, {})
    assert text.startswith("config.json, line 1 must not contain a local path.")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("spiece.model", True),
        ("recipe.yaml", True),
        ("pytorch_model.bin", False),
        ("optimizer.pt", False),
        ("train.parquet", False),
        ("config.json.orig", False),
        (".env", False),
    ],
)
def test_only_listed_files_are_uploaded(name, allowed):
    assert is_allowed(name) == allowed
