"""The messages on docs/publishing.md are those that publishing raises."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from hf_finetune.errors import InputError
from hf_finetune.publishing import hub
from hf_finetune.publishing.hub_errors import CONNECTION_FAILURE, hub_errors
from hf_finetune.publishing.upload_plan import Upload, check_finished, check_no_secrets
from hf_finetune.training.manifest import Manifest, StageRecord

PAGE = Path(__file__).parents[2] / "docs" / "publishing.md"
COMMIT = "0123456789abcdef"


def response_error(status, message, kind=HfHubHTTPError, **headers):
    response = SimpleNamespace(status_code=status, headers=headers, request=None)
    return kind(message, response=response, server_message=message)


def connection_error(name, message):
    return type(name, (CONNECTION_FAILURE,), {})(message)


def in_request(error):
    """Return a function that fails as a request to the Hub does."""

    def fail(*arguments, **options):
        with hub_errors("me/reviews", "ADDRESS"):
            raise error

    return fail


def publish_to(repository_exists):
    """Return a function that publishes to the Hub of ``UnwillingHub``."""
    lists = dict.fromkeys(("uploads", "added", "changed", "removed", "skipped"), ())
    plan = hub.PublicationPlan(
        run=Path("RUN"),
        repository="me/reviews",
        endpoint="ADDRESS",
        private=True,
        exists=repository_exists,
        revision=None,
        has_branch=True,
        head=COMMIT,
        tag="v1",
        **lists,
    )
    return lambda: hub.publish(plan)


class UnwillingHub:
    """A Hub where a dataset has the name of the model, and no tag can be set."""

    def __init__(self, **options):
        pass

    def create_repo(self, *arguments, **options):
        raise response_error(409, "You already created this repo")

    def repo_exists(self, repository, repo_type="model"):
        return repo_type == "dataset"

    def create_tag(self, *arguments, **options):
        raise response_error(500, "broken")


def unfinished_run():
    Path("RUN").mkdir()
    records = (StageRecord("head", "done"), StageRecord("all", "running"))
    Manifest(records, {}, {}, 0).write(Path("RUN/manifest.json"))
    check_finished(Path("RUN"))


def card_with_a_token():
    card = b"---\n---\nhf_0123456789abcdef0123\n"
    check_no_secrets([Upload("README.md", card, len(card))], Path("RUN"), {})


def test_the_page_has_the_message_of_every_error(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "HfApi", UnwillingHub)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    denied = 'You don\'t have the rights to create a model under the namespace "me"'
    calls = [
        in_request(LocalTokenNotFoundError("Token is required")),
        in_request(response_error(401, "Invalid credentials in Authorization header")),
        in_request(response_error(403, denied)),
        in_request(response_error(403, "Access is restricted", GatedRepoError)),
        publish_to(repository_exists=False),
        in_request(response_error(507, "Storage quota exceeded")),
        in_request(response_error(413, "Payload Too Large")),
        in_request(response_error(409, "Another commit is in progress")),
        in_request(response_error(429, "Too Many Requests", **{"Retry-After": "7"})),
        in_request(response_error(503, "Down for repair")),
        in_request(
            connection_error("RemoteProtocolError", "Server disconnected without sending a response.")
        ),
        publish_to(repository_exists=True),
        in_request(OfflineModeIsEnabled("Offline mode is enabled")),
        in_request(connection_error("ConnectError", "[Errno 111] Connection refused")),
        unfinished_run,
        card_with_a_token,
    ]
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    cells = [row.removesuffix("|").rpartition(" | ")[2].strip() for row in rows]
    assert cells.count("") == 1, "only a slow upload has no message"
    assert [cell for cell in cells if cell] == [message(call) for call in calls]


def message(call):
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)
