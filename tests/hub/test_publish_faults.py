"""Messages for refusals and failures of the Hub, after which nothing is published incompletely."""

import pytest
from hub_helpers import cli, refused
from hub_server import READ_TOKEN, TOKEN
from huggingface_hub import constants

from hf_finetune.publishing.hub import plan_publication, publish

MODEL = "/api/models/me/reviews$"
ATTEMPTS = 5


def publish_to(run, **options):
    return publish(plan_publication(run, "me/reviews", **options))


def is_unpublished(app):
    repo = app.state.repos.get(("models", "me/reviews"))
    return repo is None or set(repo.head.files) == {".gitattributes"}


# --- Tokens and permissions ------------------------------------------------------------------------------------------


def test_no_token(hub, finished, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert refused(publish_to, finished) == (
        "A Hub token must be set to publish. Log in with `hf auth login`, or set HF_TOKEN to a token with "
        "write access."
    )
    assert not hub.state.seen


def test_an_invalid_token(hub, finished, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    assert refused(publish_to, finished) == (
        "The Hub token must be valid. Got 401, Invalid credentials in Authorization header. Log in again "
        "with `hf auth login`, or check HF_TOKEN, which takes precedence."
    )


def test_a_token_that_may_only_read(hub, finished, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert refused(publish_to, finished) == (
        "The Hub token must have write access to me/reviews. Got 403, You don't have the rights to create "
        'a model under the namespace "me". Use a token with write access to it, or another namespace.'
    )
    hub.state.add_repo("me/reviews", private=True)
    assert "Got 403, Your token is read-only: a token with the write role is needed." in refused(
        publish_to, finished
    )
    assert is_unpublished(hub)


def test_another_ones_namespace(hub, finished):
    text = refused(lambda: publish(plan_publication(finished, "they/reviews")))
    assert text == (
        "The Hub token must have write access to they/reviews. Got 403, You don't have the rights to "
        'create a model under the namespace "they". Use a token with write access to it, or another '
        "namespace."
    )


def test_a_gated_repository(hub, finished):
    hub.faults.add("GET", MODEL, 403, message="Access is restricted", headers={"X-Error-Code": "GatedRepo"})
    assert refused(publish_to, finished) == (
        "Your account must have access to the gated repository me/reviews. Got 403, Access is restricted. "
        "Request access on "
        f"{hub.state.url}/me/reviews, or publish to a repository of your own."
    )


def test_a_name_that_a_dataset_has(hub, finished):
    hub.state.one_name_for_all = True
    hub.state.add_repo("me/reviews", "datasets")
    assert refused(publish_to, finished) == (
        "me/reviews must be a model repository, or an unused name. Got a dataset with this name. Choose "
        "another name. Nothing was uploaded."
    )
    assert ("models", "me/reviews") not in hub.state.repos


def test_a_dataset_of_the_same_name_is_no_obstacle_where_kinds_are_apart(hub, finished):
    hub.state.add_repo("me/reviews", "datasets")
    publish_to(finished)
    assert not is_unpublished(hub)


# --- Storage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "where", "message"),
    [
        (403, "info/lfs/objects/batch", "Private repository storage limit reached"),
        (402, "/commit/", "Payment required"),
        (507, "/preupload/", "Storage quota exceeded"),
    ],
)
def test_storage_limits_of_the_hub_are_reported(hub, finished, waits, status, where, message):
    hub.faults.add("POST", where, status, message=message)
    assert refused(publish_to, finished) == (
        f"me/reviews must have enough storage for the model. Got {status}, {message}. Nothing was "
        "published. Free some storage, publish to another namespace, or use --public."
    )
    assert is_unpublished(hub)


def test_a_request_that_is_too_large(hub, finished, waits):
    hub.faults.add("POST", "/commit/", 413, message="Payload Too Large")
    assert refused(publish_to, finished) == (
        "The files for me/reviews must be within the size limits of the Hub. Got 413, Payload Too Large. Nothing was "
        "published. Save the weights in smaller files, or train a smaller model."
    )
    assert is_unpublished(hub)


def test_a_file_over_the_limit_for_large_files(hub, finished):
    hub.state.size_limit = 1000
    text = refused(publish_to, finished)
    assert text.startswith("The files for me/reviews must be within the size limits of the Hub. Got ")
    assert "exceeds the limit of 1000 bytes" in text
    assert is_unpublished(hub) and not hub.state.requests("PUT")


# --- Concurrent changes --------------------------------------------------------------------------------------


def test_a_conflict(hub, finished, waits):
    hub.faults.add("POST", "/commit/", 409, message="Another commit is in progress")
    assert refused(publish_to, finished) == (
        "me/reviews must not change while publishing. Got 409, Another commit is in progress. It has a new "
        "commit. Review it, and publish again."
    )
    assert is_unpublished(hub) and waits == []


# --- Temporary failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "where"),
    [("GET", MODEL), ("POST", "/repos/create"), ("POST", "/commit/"), ("POST", "/tag/")],
)
def test_a_busy_hub_is_given_the_time_that_it_asks_for(hub, finished, waits, method, where):
    busy = hub.faults.add(method, where, 429, message="Too many", headers={"Retry-After": "7"}, times=2)
    publish_to(finished, tag="v1")
    assert busy.hits == 2 and waits == [7.0, 7.0]
    repo = hub.state.model("me/reviews")
    assert repo.tags == {"v1": repo.head.oid} and len(repo.commits) == 2


def test_a_hub_that_stays_busy(hub, finished, waits):
    hub.faults.add("POST", "/commit/", 429, message="Too many", headers={"Retry-After": "7"})
    assert refused(publish_to, finished) == (
        f"The rate limit of {hub.state.url} must not be exceeded. Got 429, Too many. Publish again in 7 s."
    )
    assert waits == [7.0] * (ATTEMPTS - 1) and is_unpublished(hub)


def test_a_rate_limit_is_reported_with_its_end(hub, finished, waits):
    headers = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    hub.faults.add("POST", "/commit/", 429, message="Too many", headers=headers, times=1)
    publish_to(finished)
    assert waits == [55.0] and not is_unpublished(hub)


def test_nobody_waits_for_an_hour(hub, finished, waits):
    hub.faults.add("POST", "/commit/", 429, message="Too many", headers={"Retry-After": "3600"})
    assert refused(publish_to, finished).endswith("Publish again in 3600 s.")
    assert waits == []


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("GET", MODEL),
        ("GET", "/refs"),
        ("GET", "/tree/"),
        ("POST", "/repos/create"),
        ("POST", "/preupload/"),
        ("POST", "info/lfs/objects/batch"),
        ("PUT", "/store/"),
        ("POST", "info/lfs/verify"),
        ("POST", "/commit/"),
        ("POST", "/tag/"),
    ],
)
@pytest.mark.parametrize("cut", ["", "before", "middle", "after"])
def test_temporary_failures_are_retried(hub, finished, waits, method, where, cut):
    """Also if the request succeeded, and only its answer was lost."""
    if where in ("/refs", "/tree/"):
        hub.state.add_repo("me/reviews", private=True)
    if cut == "middle" and method == "GET":
        cut = "before"
    fault = {"cut": cut} if cut else {"status": 500, "message": "broken"}
    trouble = hub.faults.add(method, where, **fault, times=1)
    publish_to(finished, tag="v1")
    repo = hub.state.model("me/reviews")
    assert trouble.hits == 1 and len(waits) == 1
    assert repo.tags == {"v1": repo.head.oid} and len(repo.commits) == 2 and "config.json" in repo.head.files


@pytest.mark.parametrize("where", ["/preupload/", "info/lfs/objects/batch", "/commit/"])
def test_trouble_that_stays(hub, finished, waits, where):
    hub.faults.add("POST", where, 503, message="Down for repair")
    assert refused(publish_to, finished) == (
        f"{hub.state.url} must be available to publish. Got 503, Down for repair. Nothing was published. "
        "Publish again later."
    )
    assert is_unpublished(hub)


@pytest.mark.parametrize(("method", "where"), [("PUT", "/store/"), ("POST", "/commit/")])
@pytest.mark.parametrize("cut", ["before", "middle"])
def test_a_connection_that_is_always_cut(hub, finished, waits, method, where, cut):
    hub.faults.add(method, where, cut=cut)
    text = refused(publish_to, finished)
    assert text.startswith(f"{hub.state.url} must be reachable to publish. Got ")
    assert text.endswith("Nothing was published. Check the network and publish again.")
    assert is_unpublished(hub)


def test_a_slow_upload(hub, finished):
    slow = hub.faults.add("PUT", "/store/", slow=0.01)
    publish_to(finished)
    assert slow.hits == 1 and not is_unpublished(hub)


def test_a_tag_that_cannot_be_set_leaves_the_model_published(hub, finished, waits):
    hub.faults.add("POST", "/tag/", 500, message="broken")
    text = refused(publish_to, finished, tag="v1")
    repo = hub.state.model("me/reviews")
    assert text == (
        f"--tag must be accepted by the Hub. Got 500, broken. The model is published, as commit "
        f"{repo.head.oid[:12]}. Publish again to set the tag."
    )
    hub.faults.clear()
    assert not publish_to(finished, tag="v1").created_commit and repo.tags == {"v1": repo.head.oid}


# --- Without a Hub ----------------------------------------------------------------------------------------------


def test_offline(hub, finished, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(publish_to, finished) == (
        "Offline mode must be disabled to publish. Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, and "
        "publish again."
    )
    assert not hub.state.seen


def test_no_hub_at_that_address(hub, finished, waits):
    text = refused(plan_publication, finished, "me/reviews", endpoint="http://127.0.0.1:9", token=TOKEN)
    assert text.startswith("http://127.0.0.1:9 must be reachable to publish. Got ConnectError: ")
    assert len(waits) == ATTEMPTS - 1


# --- On the command line ----------------------------------------------------------------------------------------


def test_the_command_line_reports_it_in_one_sentence(hub, finished):
    hub.faults.add("POST", "/repos/create", 403, message="No rights here")
    done = cli("publish", finished, "--to", "me/reviews", "--yes", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].strip() == (
        "The Hub token must have write access to me/reviews. Got 403, No rights here. Use a token with "
        "write access to it, or another namespace."
    )
