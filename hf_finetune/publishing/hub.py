"""Publishing of a finished run on the Hub: a plan of the changes to the repository, then one commit."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from hf_finetune.errors import InputError, Problem
from hf_finetune.publishing.hub_errors import hub_errors, no_token, with_retries
from hf_finetune.publishing.upload_plan import (
    Upload,
    check_finished,
    check_no_secrets,
    collect_uploads,
    is_allowed,
)
from hf_finetune.recipe.publish import check_repository

__all__ = ["PublicationPlan", "PublicationResult", "plan_publication", "publish"]

logger = logging.getLogger(__name__)

VERSION = version("hf-finetune")
MAIN = "main"
NEVER_DELETED = ("README.md",)
"""Files that are not deleted from the repository if the run does not have them, because users write them there."""
CONFLICTS = (409, 412)
"""HTTP status codes for a concurrent commit."""


@dataclass(frozen=True)
class PublicationPlan:
    """Plan of the changes that publishing a run would make on the Hub.

    Attributes:
        run: Run directory.
        repository: Repository, as ``NAMESPACE/NAME``.
        endpoint: URL of the Hub.
        private: Whether the repository is (or will be) private.
        exists: Whether the repository exists already.
        revision: Branch; None is the main branch.
        has_branch: Whether the branch exists already.
        head: Parent commit; None if the repository does not exist.
        tag: Tag to set on the commit; None sets none.
        uploads: All files of the model.
        added: Names of files that the repository does not have yet.
        changed: Names of files that differ from those in the repository.
        removed: Names of files in the repository that the model no longer has.
        skipped: Names in ``RUN/model`` that are not published.
    """

    run: Path
    repository: str
    endpoint: str
    private: bool
    exists: bool
    revision: str | None
    has_branch: bool
    head: str | None
    tag: str | None
    uploads: tuple[Upload, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def changes_files(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.added or self.changed or self.removed)

    @property
    def is_up_to_date(self) -> bool:
        """Whether the repository has everything already, including the tag."""
        return self.has_branch and self.tag is None and not self.changes_files


@dataclass(frozen=True)
class PublicationResult:
    """Result of publishing.

    Attributes:
        url: Web page of the model.
        commit: Commit with the model.
        created_commit: Whether publishing created the commit; False if the repository had all files already.
    """

    url: str
    commit: str
    created_commit: bool


@dataclass(frozen=True)
class _RemoteState:
    """Current state of a repository: visibility, branch, parent commit, and the files and tags there."""

    private: bool
    has_branch: bool
    head: str | None
    files: dict[str, Any]
    tags: dict[str, str]


def plan_publication(
    run: str | Path,
    to: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    tag: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> PublicationPlan:
    """Compare a run with a repository and return the changes that publishing would make, without making them.

    Args:
        run: Run directory.
        to: Repository, as ``NAMESPACE/NAME``.
        private: Whether the repository must be private. None makes a new repository private and accepts an existing
            one as it is.
        revision: Branch to publish to, created if it does not exist. None is the main branch.
        tag: New tag for the commit; None sets none.
        endpoint: URL of the Hub; None uses HF_ENDPOINT or the default.
        token: Access token; None uses HF_TOKEN or the token of ``hf auth login``.

    Returns:
        Plan for ``publish``.

    Raises:
        InputError: If the run is not finished, a file contains a secret or a local path, or the Hub refuses.
    """
    folder = Path(run).expanduser()
    repository = check_repository(to, "--to")
    check_finished(folder)
    uploads, skipped = collect_uploads(folder, repository)
    check_no_secrets(uploads, folder)
    api = HfApi(endpoint=endpoint, token=token, library_name="hf-finetune", library_version=VERSION)
    branch = None if revision == MAIN else revision
    with hub_errors(repository, api.endpoint):
        if token is None and get_token() is None:
            raise InputError(no_token())
        remote = _read_remote(api, repository, branch)
    files = remote.files if remote else {}
    names = {upload.name for upload in uploads}
    plan = PublicationPlan(
        folder,
        repository,
        api.endpoint,
        private=remote.private if remote else private is not False,
        exists=remote is not None,
        revision=branch,
        has_branch=bool(remote and remote.has_branch),
        head=remote.head if remote else None,
        tag=tag,
        uploads=tuple(uploads),
        added=tuple(upload.name for upload in uploads if upload.name not in files),
        changed=tuple(
            upload.name for upload in uploads if upload.name in files and not _is_unchanged(upload, files)
        ),
        removed=tuple(name for name in files if is_allowed(name) and name not in {*names, *NEVER_DELETED}),
        skipped=tuple(skipped),
    )
    return _check_against_remote(plan, remote, private) if remote else plan


def _check_against_remote(
    plan: PublicationPlan, remote: _RemoteState, private: bool | None
) -> PublicationPlan:
    """Check a plan against the existing repository; return it without its tag if the commit has the tag already."""
    if private is not None and private != remote.private:
        requested, actual = ("private", "public") if private else ("public", "private")
        field = f"private: {str(remote.private).lower()}"
        repair = f"Change its visibility on the Hub, or request {actual} ({field} in a recipe)."
        raise InputError(Problem(plan.repository, f"must be {requested}, as requested", actual, repair))
    if plan.tag is None or plan.tag not in remote.tags:
        return plan
    if plan.changes_files or not remote.has_branch or remote.tags[plan.tag] != remote.head:
        value = f"{plan.tag!r}, which is already on commit {remote.tags[plan.tag][:12]}"
        raise InputError(
            Problem("--tag", "must be a new tag", value, "Choose another name; tags are not moved.")
        )
    return replace(plan, tag=None)


def _read_remote(api: HfApi, repository: str, branch: str | None) -> _RemoteState | None:
    """Return the state of a repository on the Hub; None if it does not exist."""
    try:
        info = with_retries(lambda: api.model_info(repository))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    refs = with_retries(lambda: api.list_repo_refs(repository))
    heads = {ref.name: ref.target_commit for ref in refs.branches}
    head = heads.get(branch or MAIN)
    base = head or heads.get(MAIN)
    entries: Iterable[Any] = []
    if base is not None:
        entries = with_retries(lambda: list(api.list_repo_tree(repository, revision=base)))
    files = {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    return _RemoteState(bool(info.private), head is not None, base, files, tags)


def _is_unchanged(upload: Upload, files: dict[str, Any]) -> bool:
    """Return whether the file in the repository is unchanged, by its hash (SHA-256 in LFS, else git blob SHA-1)."""
    entry = files[upload.name]
    if entry.lfs is None:
        content = upload.source if isinstance(upload.source, bytes) else upload.source.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return blob.hexdigest() == entry.blob_id
    if isinstance(upload.source, bytes):
        return hashlib.sha256(upload.source).hexdigest() == entry.lfs.sha256
    with upload.source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == entry.lfs.sha256


def publish(plan: PublicationPlan, *, token: str | None = None) -> PublicationResult:
    """Publish a run as planned, with all files in one commit, so that the repository never contains a partial model.

    Args:
        plan: Plan from ``plan_publication``.
        token: Access token; None uses HF_TOKEN or the token of ``hf auth login``.

    Returns:
        URL and commit of the published model.

    Raises:
        InputError: If the Hub refuses, or cannot be reached after several attempts.
    """
    api = HfApi(endpoint=plan.endpoint, token=token, library_name="hf-finetune", library_version=VERSION)
    with hub_errors(plan.repository, plan.endpoint):
        head = plan.head if plan.exists else _create_repository(api, plan)
        if plan.revision is not None and not plan.has_branch:
            branch = plan.revision
            with_retries(lambda: api.create_branch(plan.repository, branch=branch, exist_ok=True))
        commit = _create_commit(api, plan, head) if plan.changes_files else str(head)
    if plan.tag is not None:
        _create_tag(api, plan, commit)
    branch_path = f"/tree/{plan.revision}" if plan.revision else ""
    return PublicationResult(f"{plan.endpoint}/{plan.repository}{branch_path}", commit, plan.changes_files)


def _create_repository(api: HfApi, plan: PublicationPlan) -> str:
    """Create the repository with the planned visibility, and return its first commit."""
    try:
        with_retries(lambda: api.create_repo(plan.repository, private=plan.private))
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        # The name exists: as this repository, if the response to an earlier attempt was lost, or as something else.
        if not api.repo_exists(plan.repository):
            raise InputError(_name_taken_problem(api, plan.repository)) from error
    info = with_retries(lambda: api.model_info(plan.repository))
    if bool(info.private) != plan.private:
        requested, actual = ("private", "public") if plan.private else ("public", "private")
        rule, repair = (
            f"must be {requested}, as requested",
            "The Hub created it this way. Nothing was uploaded.",
        )
        raise InputError(Problem(plan.repository, rule, actual, repair))
    return str(info.sha)


def _name_taken_problem(api: HfApi, repository: str) -> Problem:
    kind = next((kind for kind in ("dataset", "space") if api.repo_exists(repository, repo_type=kind)), None)
    existing = f"a {kind} with this name" if kind else "something else with this name"
    repair = "Choose another name. Nothing was uploaded."
    return Problem(repository, "must be a model repository, or an unused name", existing, repair)


def _create_commit(api: HfApi, plan: PublicationPlan, head: str | None) -> str:
    """Upload the added and changed files, delete the removed ones, and return the commit."""
    sent = {*plan.added, *plan.changed}
    additions = [CommitOperationAdd(file.name, file.source) for file in plan.uploads if file.name in sent]
    removals = [CommitOperationDelete(name) for name in plan.removed]
    size = sum(upload.size for upload in plan.uploads if upload.name in sent)
    logger.info("Uploading %d files (%s bytes) to %s.", len(additions), f"{size:,}", plan.repository)
    # Outside with_retries, because huggingface_hub retries this itself; the uploaded files are in no commit yet.
    api.preupload_lfs_files(plan.repository, additions, revision=plan.revision, free_memory=False)
    try:
        commit = with_retries(
            lambda: api.create_commit(
                plan.repository,
                [*additions, *removals],
                commit_message=_commit_message(plan),
                revision=plan.revision,
                parent_commit=head,
            )
        )
    except HfHubHTTPError as error:
        applied_commit = _commit_if_applied(api, plan) if error.response.status_code in CONFLICTS else None
        if applied_commit is None:
            raise
        return applied_commit
    return commit.oid


def _commit_message(plan: PublicationPlan) -> str:
    if not plan.exists:
        return f"Publish a model fine-tuned with hf-finetune {VERSION}"
    parts = (("Add", plan.added), ("Change", plan.changed), ("Remove", plan.removed))
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)


def _commit_if_applied(api: HfApi, plan: PublicationPlan) -> str | None:
    """Return the newest commit if it matches the plan, so that only the response to the commit was lost; else None."""
    remote = _read_remote(api, plan.repository, plan.revision)
    if remote is None or remote.head is None or any(name in remote.files for name in plan.removed):
        return None
    complete = all(
        upload.name in remote.files and _is_unchanged(upload, remote.files) for upload in plan.uploads
    )
    return remote.head if complete else None


def _create_tag(api: HfApi, plan: PublicationPlan, commit: str) -> None:
    try:
        with hub_errors(plan.repository, plan.endpoint):
            with_retries(
                lambda: api.create_tag(plan.repository, tag=str(plan.tag), revision=commit, exist_ok=True)
            )
    except InputError as error:
        repair = f"The model is published, as commit {commit[:12]}. Publish again to set the tag."
        value = error.problems[0].value or error.problems[0].rule
        raise InputError(Problem("--tag", "must be accepted by the Hub", value, repair)) from error
