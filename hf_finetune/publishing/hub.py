"""Publish a finished run on the Hub: look what would change there, then change it in one commit."""

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
from hf_finetune.publishing.upload_plan import Upload, check_finished, check_private, collect, is_allowed
from hf_finetune.recipe.publish import check_repository

__all__ = ["Publication", "Published", "plan_publication", "publish"]

logger = logging.getLogger(__name__)

VERSION = version("hf-finetune")
MAIN = "main"
KEPT = ("README.md",)
"""Names that stay in a repository when a run has none of them: somebody wrote them there."""
CONFLICTS = (409, 412)


@dataclass(frozen=True)
class Publication:
    """What publishing would do.

    Attributes:
        run: The run directory.
        repository: ``NAMESPACE/NAME``.
        endpoint: Address of the Hub.
        private: Whether nobody else sees the repository.
        exists: Whether the repository is there already.
        revision: The branch; None is the main one.
        has_branch: Whether the branch is there already.
        head: The commit that this one comes after; None where there is no repository.
        tag: The tag to be set; None is none.
        uploads: All files of the model.
        added: Names of those that are new there.
        changed: Names of those that differ there.
        removed: Names there that the model no longer has.
        left: Names in ``RUN/model`` that are not published.
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
    left: tuple[str, ...]

    @property
    def changes_files(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.added or self.changed or self.removed)

    @property
    def is_nothing(self) -> bool:
        """Whether all is there already, the tag too."""
        return self.has_branch and self.tag is None and not self.changes_files


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        url: Where a browser shows it.
        commit: The commit that holds the model.
        new: Whether the commit was made now; otherwise everything was there already.
    """

    url: str
    commit: str
    new: bool


@dataclass(frozen=True)
class _Found:
    """A repository as it is: who sees it, its branch, and the files that a commit there would come on top of."""

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
) -> Publication:
    """Find out what publishing a run would do. Reads the Hub and writes nothing.

    Args:
        run: The run directory.
        to: ``NAMESPACE/NAME``.
        private: Whether nobody else may see the repository. None makes a new one private and takes one that exists
            as it is.
        revision: The branch that gets the model; it is made if it is not there. None is the main one.
        tag: A new tag for the commit.
        endpoint: Address of the Hub; None is that of the environment.
        token: To log in with; None is that of the environment, or of ``hf auth login``.
    Raises:
        InputError: If the run is not finished, holds what must not be published, or the Hub refuses.
    """
    folder = Path(run).expanduser()
    repository = check_repository(to, "--to")
    check_finished(folder)
    uploads, left = collect(folder, repository)
    check_private(uploads, folder)
    api = HfApi(endpoint=endpoint, token=token, library_name="hf-finetune", library_version=VERSION)
    branch = None if revision == MAIN else revision
    with hub_errors(repository, api.endpoint):
        if token is None and get_token() is None:
            raise InputError(no_token())
        found = _look(api, repository, branch)
    files = found.files if found else {}
    names = {upload.name for upload in uploads}
    planned = Publication(
        folder,
        repository,
        api.endpoint,
        private=found.private if found else private is not False,
        exists=found is not None,
        revision=branch,
        has_branch=bool(found and found.has_branch),
        head=found.head if found else None,
        tag=tag,
        uploads=tuple(uploads),
        added=tuple(upload.name for upload in uploads if upload.name not in files),
        changed=tuple(upload.name for upload in uploads if upload.name in files and not _same(upload, files)),
        removed=tuple(name for name in files if is_allowed(name) and name not in {*names, *KEPT}),
        left=tuple(left),
    )
    if found:
        return _agreeing(planned, found, private)
    return planned


def _agreeing(planned: Publication, found: _Found, private: bool | None) -> Publication:
    """Refuse what does not fit a repository that is there already; leave out a tag that is set already."""
    if private is not None and private != found.private:
        asked, is_so = ("private", "public") if private else ("public", "private")
        repair = (
            f"Change it on the Hub, or ask for {is_so} (private: {str(found.private).lower()} in a recipe)."
        )
        raise InputError(Problem(planned.repository, f"must be {asked}, as asked", is_so, repair))
    if planned.tag is None or planned.tag not in found.tags:
        return planned
    if planned.changes_files or not found.has_branch or found.tags[planned.tag] != found.head:
        value = f"{planned.tag!r}, which is on commit {found.tags[planned.tag][:12]}"
        raise InputError(Problem("--tag", "must be new", value, "Name another; tags are not moved."))
    return replace(planned, tag=None)


def _look(api: HfApi, repository: str, branch: str | None) -> _Found | None:
    """Read what is in a repository; None if it is not there."""
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
    return _Found(bool(info.private), head is not None, base, files, tags)


def _same(upload: Upload, files: dict[str, Any]) -> bool:
    """Tell by the hash that the Hub keeps whether a file there is this one."""
    entry = files[upload.name]
    if entry.lfs is None:
        content = upload.source if isinstance(upload.source, bytes) else upload.source.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return blob.hexdigest() == entry.blob_id
    if isinstance(upload.source, bytes):
        return hashlib.sha256(upload.source).hexdigest() == entry.lfs.sha256
    with upload.source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == entry.lfs.sha256


def publish(planned: Publication, *, token: str | None = None) -> Published:
    """Do what was planned. All files go in one commit: whoever loads the model gets the old or the new one.

    Args:
        planned: From ``plan_publication``.
        token: As there.
    Raises:
        InputError: If the Hub refuses, or cannot be reached after several attempts.
    """
    api = HfApi(endpoint=planned.endpoint, token=token, library_name="hf-finetune", library_version=VERSION)
    with hub_errors(planned.repository, planned.endpoint):
        head = planned.head if planned.exists else _create(api, planned)
        if planned.revision is not None and not planned.has_branch:
            _branch(api, planned)
        commit = _commit(api, planned, head) if planned.changes_files else str(head)
    if planned.tag is not None:
        _tag(api, planned, commit)
    place = f"/tree/{planned.revision}" if planned.revision else ""
    return Published(f"{planned.endpoint}/{planned.repository}{place}", commit, planned.changes_files)


def _create(api: HfApi, planned: Publication) -> str:
    """Make the repository, and give its first commit."""
    try:
        with_retries(lambda: api.create_repo(planned.repository, private=planned.private))
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        # there is something: the repository, if the answer to an earlier attempt was lost, or another of its name
        if not api.repo_exists(planned.repository):
            raise InputError(_taken(api, planned.repository)) from error
    info = with_retries(lambda: api.model_info(planned.repository))
    if bool(info.private) != planned.private:
        asked, is_so = ("private", "public") if planned.private else ("public", "private")
        rule = f"must be {asked}, as asked"
        raise InputError(Problem(planned.repository, rule, is_so, "It was just made. Nothing was uploaded."))
    return str(info.sha)


def _taken(api: HfApi, repository: str) -> Problem:
    kind = next((kind for kind in ("dataset", "space") if api.repo_exists(repository, repo_type=kind)), None)
    found = f"a {kind} of this name" if kind else "something else of this name"
    repair = "Nothing was sent. Choose another name."
    return Problem(repository, "must be a model's repository, or free", found, repair)


def _branch(api: HfApi, planned: Publication) -> None:
    with_retries(lambda: api.create_branch(planned.repository, branch=str(planned.revision), exist_ok=True))


def _commit(api: HfApi, planned: Publication, head: str | None) -> str:
    """Upload what is new or changed, drop what is no longer there, and give the commit."""
    sent = {*planned.added, *planned.changed}
    additions = [CommitOperationAdd(one.name, one.source) for one in planned.uploads if one.name in sent]
    removals = [CommitOperationDelete(name) for name in planned.removed]
    size = sum(upload.size for upload in planned.uploads if upload.name in sent)
    logger.info("Uploading %d files (%s bytes) to %s.", len(additions), f"{size:,}", planned.repository)
    # the library tries this again by itself, and what it has uploaded is in no commit yet
    api.preupload_lfs_files(planned.repository, additions, revision=planned.revision, free_memory=False)
    try:
        made = with_retries(
            lambda: api.create_commit(
                planned.repository,
                [*additions, *removals],
                commit_message=_message(planned),
                revision=planned.revision,
                parent_commit=head,
            )
        )
    except HfHubHTTPError as error:
        if error.response.status_code not in CONFLICTS:
            raise
        landed = _landed(api, planned)
        if landed is None:
            raise
        return landed
    return made.oid


def _message(planned: Publication) -> str:
    if not planned.exists:
        return f"Publish a model fine-tuned with hf-finetune {VERSION}"
    parts = (("Add", planned.added), ("Change", planned.changed), ("Remove", planned.removed))
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)


def _landed(api: HfApi, planned: Publication) -> str | None:
    """Give the newest commit if it holds just what was to be published: then only the answer to it was lost."""
    found = _look(api, planned.repository, planned.revision)
    if found is None or found.head is None or any(name in found.files for name in planned.removed):
        return None
    whole = all(upload.name in found.files and _same(upload, found.files) for upload in planned.uploads)
    return found.head if whole else None


def _tag(api: HfApi, planned: Publication, commit: str) -> None:
    try:
        with hub_errors(planned.repository, planned.endpoint):
            with_retries(
                lambda: api.create_tag(
                    planned.repository, tag=str(planned.tag), revision=commit, exist_ok=True
                )
            )
    except InputError as error:
        repair = f"The model is published, as commit {commit[:12]}. Publish again to set the tag."
        value = error.problems[0].value or error.problems[0].rule
        raise InputError(Problem("--tag", "must be accepted by the Hub", value, repair)) from error
