"""Answers and errors of the test Hub, with the headers that the client reads."""

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """An answer; a body other than bytes is sent as JSON."""

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self):
        headers = dict(self.headers)
        if isinstance(self.body, bytes):
            body = self.body
            headers.setdefault("Content-Type", "application/octet-stream")
        else:
            body = json.dumps(self.body).encode()
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        headers.setdefault("Content-Length", str(len(body)))
        return body, list(headers.items())


class Refusal(Exception):
    """An answer that ends the processing of a request."""

    def __init__(self, status, message, code="", **headers):
        super().__init__(message)
        named = {"X-Error-Message": message, **headers}
        if code:
            named["X-Error-Code"] = code
        self.answer = Answer(status, {"error": message}, named)


def no_repo(known):
    """Return the error for a missing or private repository: 401 for anonymous users, who must not learn more."""
    if known:
        return Refusal(404, "Repository not found", "RepoNotFound")
    return Refusal(401, "Repository not found", "RepoNotFound")


def no_revision(revision):
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(path, commit):
    return Refusal(404, f"Entry not found: {path}", "EntryNotFound", **{"X-Repo-Commit": commit})


def user_of(hub, request, needed=False):
    """Return the user of a request; None if anonymous.

    Raises:
        Refusal: If the token is unknown, or missing but required.
    """
    given = request.headers.get("authorization", "")
    token = given.removeprefix("Bearer ")
    if token:
        if token not in hub.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return hub.users[token]
    if needed:
        raise Refusal(401, "Invalid username or password.")
    return None


def repo_for(hub, request, kind, name, write=False):
    """Return a repository to a user who may see it, or write to it."""
    user = user_of(hub, request, needed=write)
    repo = hub.repos.get((kind, name))
    owner = user is not None and user.owns(name.partition("/")[0])
    if repo is None or (repo.private and not owner):
        raise no_repo(user is not None)
    if write and not (owner and user.role == "write"):
        text = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
        if owner:
            text = "Your token is read-only: a token with the write role is needed"
        raise Refusal(403, text)
    return repo


def readable_files(hub, request, kind, name):
    """Return a repository to a user who may read its files; of a gated one only a few files are readable."""
    repo = repo_for(hub, request, kind, name)
    user = user_of(hub, request)
    if repo.gated and not (user and user.owns(name.partition("/")[0])):
        text = (
            f"Access to {kind.removesuffix('s')} {name} is restricted and you are not in the authorized list."
        )
        raise Refusal(403 if user else 401, text, "GatedRepo")
    return repo


def commit_for(repo, revision):
    commit = repo.resolve(revision)
    if commit is None:
        raise no_revision(revision)
    return commit
