"""A finished run is published, others load it, and another upload sends only the changes."""

import json
import os
import pty

import pytest
from hub_helpers import cli, python, received, refused, set_state
from hub_server import TOKEN

from hf_finetune.publishing.hub import plan_publication, publish
from hf_finetune.publishing.upload_plan import MODEL_PLACEHOLDER

PUBLISHED = {
    ".gitattributes",
    "README.md",
    "config.json",
    "model.safetensors",
    "recipe.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
}
# Prints the answers of models on a line each; their names and revisions are arguments.
LOAD = """
import json, sys
from transformers import AutoModelForSequenceClassification, pipeline
sys.modules["hf_finetune"] = None  # nothing of this package may be needed
for where, revision in zip(sys.argv[1::2], sys.argv[2::2]):
    model = AutoModelForSequenceClassification.from_pretrained(where, revision=revision or None)
    pipe = pipeline("text-classification", model=where, revision=revision or None, top_k=None)
    print(json.dumps(sorted((each["label"], each["score"]) for each in pipe(["good film"])[0])))
"""


def publish_to(run, to, **options):
    return publish(plan_publication(run, to, **options))


def change(run, name, text):
    (run / "model" / name).write_text(text, encoding="utf-8")


# --- Published files -----------------------------------------------------------------------------------------------


def test_a_run_is_published_in_one_commit_and_others_load_it(hub, finished):
    done = cli("publish", finished, "--to", "me/reviews", "--yes")
    repo = hub.state.model("me/reviews")
    assert repo.private
    assert set(repo.head.files) == PUBLISHED
    assert len(repo.commits) == 2 and repo.head.title.startswith(
        "Publish a model fine-tuned with hf-finetune"
    )
    assert f"To {hub.state.url}/me/reviews, a new repository, private" in done.stdout
    assert "model.safetensors" in done.stdout and " bytes" in done.stdout
    assert f"Published as {hub.state.url}/me/reviews, commit {repo.head.oid[:12]}." in done.stdout
    for name in PUBLISHED - {".gitattributes", "recipe.yaml"}:
        assert repo.head.files[name].content == (finished / "model" / name).read_bytes()
    said = python(LOAD, "me/reviews", "", finished / "model", "").stdout
    there, here = map(json.loads, said.splitlines())
    assert there == here and len(there) == 3


def test_only_the_model_is_uploaded(hub, finished):
    planned = plan_publication(finished, "me/reviews")
    assert planned.skipped == ("optimizer.pt", "reviews.csv", "training_args.bin")
    publish(planned)
    arrived = received(hub)
    for text in (b"OPTIMISER", b"PREDICTIONS", b"THE DATA", b"THE LOG", TOKEN.encode()):
        assert text not in arrived
    assert str(finished.parent).encode() not in arrived


def test_the_published_recipe_has_no_local_paths(hub, finished, bert_checkpoint):
    publish_to(finished, "me/reviews")
    text = hub.state.model("me/reviews").head.files["recipe.yaml"].content.decode()
    assert text.startswith("# Paths that begin with ./ were on a local disk: replace them.\n")
    assert "path: ./reviews.csv" in text and bert_checkpoint.name in text
    assert str(finished.parent) not in text and str(bert_checkpoint.parent) not in text


def test_repositories_are_public_only_on_request(hub, finished):
    publish_to(finished, "me/reviews", private=False)
    assert not hub.state.model("me/reviews").private
    text = refused(plan_publication, finished, "me/reviews", private=True)
    assert text == (
        "me/reviews must be private, as requested. Got public. Change its visibility on the Hub, or "
        "request public (private: false in a recipe)."
    )
    assert not plan_publication(finished, "me/reviews").private


def test_the_namespace_of_an_organisation(hub, finished):
    publish_to(finished, "us/reviews")
    assert set(hub.state.model("us/reviews").head.files) == PUBLISHED


# --- Branches and tags ------------------------------------------------------------------------------------------


def test_a_branch_and_a_tag(hub, finished):
    cli("publish", finished, "--to", "me/reviews", "--yes", "--revision", "try/one", "--tag", "v1")
    repo = hub.state.model("me/reviews")
    assert set(repo.head.files) == {".gitattributes"}
    branch = repo.commits[repo.branches["try/one"]]
    assert set(branch.files) == PUBLISHED and repo.tags == {"v1": branch.oid}
    said = python(LOAD, "me/reviews", "try/one", "me/reviews", "v1").stdout
    assert [len(json.loads(line)) for line in said.splitlines()] == [3, 3]


def test_the_card_names_the_repository_of_the_model(hub, finished):
    line = 'pipeline("text-classification", model="{}")\n'
    change(finished, "README.md", line.format(MODEL_PLACEHOLDER))
    publish_to(finished, "me/reviews")
    sent = hub.state.model("me/reviews").head.files["README.md"].content.decode()
    assert sent.endswith(line.format("me/reviews"))
    assert (
        (finished / "model" / "README.md")
        .read_text(encoding="utf-8")
        .endswith(line.format(MODEL_PLACEHOLDER))
    )
    assert plan_publication(finished, "me/reviews").is_up_to_date


def test_a_tag_is_not_moved(hub, finished):
    publish_to(finished, "me/reviews", tag="v1")
    head = hub.state.model("me/reviews").head.oid
    assert plan_publication(finished, "me/reviews", tag="v1").is_up_to_date
    change(finished, "README.md", "Another card\n")
    seen = len(hub.state.requests("POST"))
    text = refused(plan_publication, finished, "me/reviews", tag="v1")
    assert text == (
        f"--tag must be a new tag. Got 'v1', which is already on commit {head[:12]}. Choose another name; "
        f"tags are not moved."
    )
    assert len(hub.state.requests("POST")) == seen


def test_a_tag_alone_makes_no_commit(hub, finished):
    publish_to(finished, "me/reviews")
    done = publish_to(finished, "me/reviews", tag="v1")
    repo = hub.state.model("me/reviews")
    assert not done.created_commit and repo.tags == {"v1": repo.head.oid} and len(repo.commits) == 2


# --- Publishing again ----------------------------------------------------------------------------------------------


def test_the_second_upload_sends_only_changed_files(hub, finished):
    publish_to(finished, "me/reviews")
    repo = hub.state.model("me/reviews")
    before = repo.head
    change(finished, "README.md", "Another card\n")
    planned = plan_publication(finished, "me/reviews")
    assert (planned.added, planned.changed, planned.removed) == ((), ("README.md",), ())
    publish(planned)
    assert (repo.head.parent, repo.head.title) == (before.oid, "Change README.md")
    assert {name for name in PUBLISHED if repo.head.files[name] != before.files[name]} == {"README.md"}
    assert len(hub.state.requests("PUT", "/store/")) == 1


def test_nothing_has_changed(hub, finished):
    publish_to(finished, "me/reviews")
    repo, seen = hub.state.model("me/reviews"), len(hub.state.requests("POST"))
    done = cli("publish", finished, "--to", "me/reviews", "--yes")
    assert f"Nothing has changed since commit {repo.head.oid[:12]}." in done.stdout
    assert len(repo.commits) == 2 and len(hub.state.requests("POST")) == seen


def test_old_weight_files_are_deleted(hub, finished):
    """A file of the previous model would be loaded instead of the new ones."""
    files = {
        "model-00001-of-00001.safetensors": b"old",
        "vocab.txt": b"old",
        "README.md": b"written by hand",
        "LICENSE": b"free",
    }
    repo = hub.state.add_repo("me/reviews", private=True, files=files)
    planned = plan_publication(finished, "me/reviews")
    assert set(planned.removed) == {"model-00001-of-00001.safetensors", "vocab.txt"}
    assert planned.changed == ("README.md",)
    publish(planned)
    assert set(repo.head.files) == PUBLISHED | {"LICENSE"} and len(repo.commits) == 3


def test_somebody_elses_commit_in_between_is_not_lost(hub, finished, waits):
    publish_to(finished, "me/reviews")
    change(finished, "README.md", "Another card\n")
    planned = plan_publication(finished, "me/reviews")
    repo = hub.state.model("me/reviews")
    repo.commit("main", {}, "somebody else")
    text = refused(publish, planned)
    assert text == (
        "me/reviews must not change while publishing. Got 412, A commit has happened since. Please refresh "
        "and try again. It has a new commit. Review it, and publish again."
    )
    assert repo.head.title == "somebody else"


# --- Errors before any request -------------------------------------------------------------------


def test_a_run_that_is_not_finished(hub, finished):
    stages = [{"name": "head", "state": "done"}, {"name": "all", "state": "running"}]
    set_state(finished, stages=stages, state="running")
    text = refused(plan_publication, finished, "me/reviews")
    assert text == (
        f"{finished} must be a finished run. Got unfinished stages: all. Finish it: hf-finetune run "
        f"{finished / 'recipe.yaml'} --output-dir {finished} --resume."
    )
    set_state(finished, stages=stages[:1], state="running")
    assert "Got no evaluation yet." in refused(plan_publication, finished, "me/reviews")
    assert not hub.state.seen


def test_a_folder_that_is_no_run(hub, finished, tmp_path):
    text = refused(plan_publication, finished / "model", "me/reviews")
    assert text == (
        f"{finished / 'model'} must be a run directory. Got a folder without manifest.json. Pass the "
        "folder that `hf-finetune run` wrote, not the model in it."
    )
    assert "Got a folder that does not exist." in refused(plan_publication, tmp_path / "no", "me/reviews")
    (finished / "model" / "config.json").unlink()
    assert refused(plan_publication, finished, "me/reviews") == (
        f"{finished} must contain a model. Got no model/config.json."
    )
    (finished / "adapter").mkdir()
    assert "Got only an adapter. Run it again with model.adapter.save: merged, or both." in refused(
        plan_publication, finished, "me/reviews"
    )
    assert not hub.state.seen


@pytest.mark.parametrize("name", ["reviews", "me/re views", "me/a--b", "a/b/c", "me/", "me/x.git", "me/.."])
def test_a_name_that_is_invalid_on_the_hub(hub, finished, name):
    assert refused(plan_publication, finished, name) == (
        f"--to must be a repository, NAMESPACE/NAME. Got {name!r}. For example me/dish-recognizer: "
        "letters, digits, '-', '_' and '.'."
    )
    assert not hub.state.seen


def test_without_a_terminal_yes_is_required(hub, finished):
    done = cli("publish", finished, "--to", "me/reviews", check=False)
    assert done.returncode == 2
    assert "--yes is required when stdin is not a terminal." in done.stderr
    assert not hub.state.seen


def test_the_answer_to_the_question_is_respected(hub, finished):
    terminal, end = pty.openpty()
    os.write(terminal, b"n\n")
    done = cli("publish", finished, "--to", "me/reviews", check=False, stdin=end)
    assert done.returncode == 1 and "Publish this? [y/N]" in done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Nothing was published.") and not hub.state.requests("POST")
    os.write(terminal, b"y\n")
    cli("publish", finished, "--to", "me/reviews", stdin=end)
    assert set(hub.state.model("me/reviews").head.files) == PUBLISHED
