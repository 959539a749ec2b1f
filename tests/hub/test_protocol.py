"""The test Hub supports the real client: each client call that the package uses."""

import hashlib
from pathlib import Path

import pytest
from hub_helpers import python
from hub_server import READ_TOKEN, TOKEN
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS = bytes(range(256)) * 1000


@pytest.fixture
def api(hub):
    return HfApi()


@pytest.fixture
def filled(hub):
    """Return a repository with a small and a large file, and one in a folder."""
    files = {"config.json": b'{"a": 1}\n', "model.safetensors": WEIGHTS, "more/notes.txt": b"notes\n"}
    return hub.state.add_repo("me/filled", files=files)


def status_of(error, function, *arguments, **options):
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    return caught.value.response.status_code


# --- Permissions ----------------------------------------------------------------------------------------------


def test_the_client_learns_who_it_is(hub, api):
    assert api.whoami()["name"] == "me"
    assert api.whoami(token=READ_TOKEN)["auth"]["accessToken"]["role"] == "read"
    assert status_of(HfHubHTTPError, api.whoami, token="hf_nobody") == 401


def test_a_private_repository_is_not_there_for_strangers(hub, api, filled):
    filled.private = True
    assert api.model_info("me/filled").private
    assert status_of(RepositoryNotFoundError, api.model_info, "me/filled", token=False) == 401
    assert status_of(HfHubHTTPError, api.model_info, "me/filled", token="hf_nobody") == 401
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("me/filled", "config.json", token=False)


def test_a_gated_repository_is_seen_but_not_read(hub, api):
    hub.state.add_repo("they/gated", gated=True, files={"config.json": b"{}"})
    assert api.model_info("they/gated").gated == "manual"
    assert status_of(GatedRepoError, hf_hub_download, "they/gated", "config.json") == 403


def test_a_token_to_read_may_not_write(hub, api, filled):
    operations = [CommitOperationAdd("a.txt", b"a")]
    options = {"commit_message": "add", "token": READ_TOKEN}
    assert status_of(HfHubHTTPError, api.create_commit, "me/filled", operations, **options) == 403
    assert status_of(HfHubHTTPError, api.create_repo, "me/new", token=READ_TOKEN) == 403
    assert status_of(HfHubHTTPError, api.create_repo, "they/new") == 403
    assert ("models", "me/new") not in hub.state.repos


# --- Repositories, branches, tags -------------------------------------------------------------------------------


def test_a_repository_is_made_once(hub, api):
    made = api.create_repo("me/new", private=True)
    assert (made.repo_id, made.repo_type) == ("me/new", "model")
    assert hub.state.model("me/new").private
    assert status_of(HfHubHTTPError, api.create_repo, "me/new") == 409
    assert api.create_repo("me/new", exist_ok=True).repo_id == "me/new"
    assert api.create_repo("us/new", repo_type="dataset").repo_type == "dataset"
    assert api.repo_exists("us/new", repo_type="dataset") and not api.repo_exists("us/new")
    api.update_repo_settings("me/new", private=False)
    assert not api.model_info("me/new").private


def test_branches_and_tags(hub, api, filled):
    head = filled.head.oid
    api.create_branch("me/filled", branch="try/one")
    api.create_tag("me/filled", tag="v1", revision="try/one")
    assert status_of(HfHubHTTPError, api.create_tag, "me/filled", tag="v1") == 409
    assert status_of(HfHubHTTPError, api.create_branch, "me/filled", branch="try/one") == 409
    refs = api.list_repo_refs("me/filled")
    assert {(ref.name, ref.target_commit) for ref in refs.branches} == {("main", head), ("try/one", head)}
    assert [(ref.name, ref.ref) for ref in refs.tags] == [("v1", "refs/tags/v1")]
    assert api.model_info("me/filled", revision="v1").sha == head
    assert api.model_info("me/filled", revision="try/one").sha == head
    api.delete_tag("me/filled", tag="v1")
    assert status_of(RevisionNotFoundError, api.model_info, "me/filled", revision="v1") == 404
    titles = [commit.title for commit in api.list_repo_commits("me/filled")]
    assert titles == ["add files", "initial commit"]


# --- Commits ----------------------------------------------------------------------------------------------------


def test_a_folder_is_uploaded_in_one_commit(hub, api, tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "config.json").write_bytes(b"{}")
    (tmp_path / "folder" / "inner" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "folder" / "empty.txt").write_bytes(b"")
    api.create_repo("me/new")
    done = api.upload_folder(repo_id="me/new", folder_path=tmp_path / "folder", commit_message="all")
    repo = hub.state.model("me/new")
    assert done.oid == repo.head.oid and repo.head.title == "all"
    assert set(repo.head.files) == {
        ".gitattributes",
        "config.json",
        "empty.txt",
        "inner/model.safetensors",
    }
    large = repo.head.files["inner/model.safetensors"]
    assert large.large and large.content == WEIGHTS
    assert [seen.method for seen in hub.state.requests(containing="/store/")] == ["PUT"]
    assert len(hub.state.requests("POST", "info/lfs/verify")) == 1
    assert not any("authorization" in seen.headers for seen in hub.state.requests(containing="/store/"))
    # files that exist already are neither sent nor committed
    again = api.upload_folder(repo_id="me/new", folder_path=tmp_path / "folder", commit_message="again")
    assert again.oid == done.oid and len(repo.commits) == 2
    assert len(hub.state.requests(containing="/store/")) == 1


def test_a_large_file_is_uploaded_in_parts(hub, api):
    hub.state.part_size = 100_000
    api.create_repo("me/new")
    api.upload_file(repo_id="me/new", path_in_repo="model.safetensors", path_or_fileobj=WEIGHTS)
    assert hub.state.model("me/new").head.files["model.safetensors"].content == WEIGHTS
    paths = [seen.path.rpartition("/")[2] for seen in hub.state.requests("PUT")]
    assert paths == ["1", "2", "3"]
    assert len(hub.state.requests("POST", "/complete/")) == 1


def test_a_file_over_the_limit_is_refused_before_it_is_sent(hub, api):
    hub.state.size_limit = 1000
    api.create_repo("me/new")
    with pytest.raises(ValueError, match="exceeds the limit of 1000 bytes"):
        api.upload_file(repo_id="me/new", path_in_repo="model.safetensors", path_or_fileobj=WEIGHTS)
    assert not hub.state.requests("PUT") and not hub.state.large


def test_a_commit_on_top_of_another_one_is_refused(hub, api, filled):
    parent = filled.head.oid
    add = [CommitOperationAdd("a.txt", b"a")]
    api.create_commit("me/filled", add, commit_message="a", parent_commit=parent)
    late = [CommitOperationAdd("b.txt", b"b")]
    options = {"commit_message": "b", "parent_commit": parent}
    assert status_of(HfHubHTTPError, api.create_commit, "me/filled", late, **options) == 412
    assert "b.txt" not in filled.head.files


def test_a_commit_is_atomic(hub, api, filled):
    before = filled.head
    wrong = [CommitOperationAdd("a.txt", b"a"), CommitOperationDelete("nothing.txt")]
    assert status_of(EntryNotFoundError, api.create_commit, "me/filled", wrong, commit_message="a") == 404
    assert filled.head is before
    right = [CommitOperationAdd("a.txt", b"a"), CommitOperationDelete("more/", is_folder=True)]
    api.create_commit("me/filled", right, commit_message="b")
    assert set(filled.head.files) == {".gitattributes", "a.txt", "config.json", "model.safetensors"}


def test_a_card_is_checked_before_anything_is_uploaded(hub, api, filled):
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(
            repo_id="me/filled", path_in_repo="README.md", path_or_fileobj=b"---\ntags: [a\n---\n"
        )
    assert not hub.state.requests(containing="/preupload/")


# --- Trees and files --------------------------------------------------------------------------------------------


def test_the_tree(hub, api, filled):
    found = {entry.path: entry for entry in api.list_repo_tree("me/filled", recursive=True)}
    assert set(found) == {".gitattributes", "config.json", "model.safetensors", "more", "more/notes.txt"}
    assert found["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert found["model.safetensors"].size == len(WEIGHTS)
    assert found["config.json"].lfs is None
    assert [entry.path for entry in api.list_repo_tree("me/filled", "more")] == ["more/notes.txt"]
    assert len([*api.list_repo_tree("me/filled")]) == 4
    infos = api.get_paths_info("me/filled", ["config.json", "more", "nothing"])
    assert [info.path for info in infos] == ["config.json", "more"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("me/filled", "nothing"))
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree("me/filled", revision="nothing"))


def test_a_long_tree_comes_in_pages(hub, api):
    names = {f"texts/{index:04d}.txt": b"text" for index in range(2100)}
    hub.state.add_repo("me/long", files=names)
    found = [entry.path for entry in api.list_repo_tree("me/long", recursive=True)]
    assert len(found) == len(set(found)) == 2100 + 2
    assert len(hub.state.requests("GET", "/tree/")) == 3


def test_the_content_of_a_repository_is_listed(hub, api, filled):
    found = api.model_info("me/filled", files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in found.siblings}
    assert sizes["model.safetensors"] == len(WEIGHTS) and found.sha == filled.head.oid


def test_a_file_is_downloaded_once(hub, filled):
    path = Path(hf_hub_download("me/filled", "model.safetensors"))
    assert path.read_bytes() == WEIGHTS
    assert path.parent.name == filled.head.oid
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    (fetched,) = hub.state.requests("GET", "/cdn/")
    assert "authorization" not in fetched.headers
    hf_hub_download("me/filled", "model.safetensors")
    assert len(hub.state.requests("GET", "/cdn/")) == 1
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("me/filled", "nothing.json")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("me/filled", "config.json", revision="nothing")


def test_a_renamed_repository_is_found(hub, filled):
    hub.state.moved["models", "me/before"] = "me/filled"
    assert Path(hf_hub_download("me/before", "config.json")).read_bytes() == b'{"a": 1}\n'


def test_a_snapshot_and_parts_of_files(hub, filled):
    folder = Path(snapshot_download("me/filled"))
    assert (folder / "more" / "notes.txt").read_text() == "notes\n"
    files = HfFileSystem()
    with files.open("me/filled/model.safetensors", block_size=1000) as stream:
        stream.seek(100_000)
        assert stream.read(500) == WEIGHTS[100_000:100_500]
    assert any("range" in seen.headers for seen in hub.state.requests("GET", "/cdn/"))
    assert files.glob("me/filled/**/*.txt") == ["me/filled/more/notes.txt"]


def test_an_interrupted_download_is_resumed(hub, filled, waits):
    cut = hub.faults.add("GET", "/cdn/", cut="before", times=1)
    assert Path(hf_hub_download("me/filled", "model.safetensors")).read_bytes() == WEIGHTS
    assert cut.hits == 1


# --- Faults -----------------------------------------------------------------------------------------------------


def test_a_fault_occurs_the_given_number_of_times(hub, api, filled):
    fault = hub.faults.add("GET", "/api/models/me/filled$", 500, message="broken", times=1)
    assert status_of(HfHubHTTPError, api.model_info, "me/filled") == 500
    assert api.model_info("me/filled").sha == filled.head.oid
    assert fault.hits == 1


@pytest.mark.parametrize("where", ["before", "middle", "after"])
def test_a_cut_connection_is_no_answer(hub, api, filled, where):
    hub.faults.add("POST", "/commit/", cut=where)
    before = filled.head
    with pytest.raises(HfHubHTTPError.__mro__[1]) as caught:
        api.create_commit("me/filled", [CommitOperationAdd("a.txt", b"a")], commit_message="a")
    assert not isinstance(caught.value, HfHubHTTPError)
    assert (filled.head is not before) == (where == "after")


def test_a_slow_upload_arrives(hub, api, filled):
    slow = hub.faults.add("PUT", "/store/", slow=0.01)
    api.upload_file(repo_id="me/filled", path_in_repo="new.safetensors", path_or_fileobj=WEIGHTS[::-1])
    assert slow.hits == 1 and filled.head.files["new.safetensors"].content == WEIGHTS[::-1]


# --- The libraries above the client -----------------------------------------------------------------------------

LOAD = """
import sys
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained("me/tiny")
assert model.config.num_labels == 3 and len(AutoTokenizer.from_pretrained("me/tiny")) == 15
splits = load_dataset("me/reviews")
assert len(splits["train"]) == 40 and splits["train"].column_names == ["text", "label"]
print("loaded", sorted(splits))
"""


def test_models_and_data_are_loaded_by_their_name(hub, bert_checkpoint, reviews):
    files = {path.name: path.read_bytes() for path in bert_checkpoint.iterdir()}
    hub.state.add_repo("me/tiny", private=True, files=files)
    hub.state.add_repo("me/reviews", "datasets", private=True, files={"train.csv": reviews.read_bytes()})
    assert "loaded ['train']" in python(LOAD).stdout
    tokens = {seen.headers.get("authorization") for seen in hub.state.requests(containing="/resolve/")}
    assert tokens == {f"Bearer {TOKEN}"}
