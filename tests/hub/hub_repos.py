"""API of the test Hub: users, repositories, branches, tags, trees, and commits."""

import base64
import json
from urllib.parse import parse_qs

import yaml
from hub_answers import Answer, Refusal, commit_for, no_entry, readable_files, repo_for, user_of
from hub_state import KINDS, File, blob_id, is_large_file

PAGE = 1000


def whoami(hub, request):
    user = user_of(hub, request, needed=True)
    return Answer(
        body={
            "type": "user",
            "id": "0" * 24,
            "name": user.name,
            "orgs": [{"type": "org", "name": name} for name in user.orgs],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": user.role},
            },
        }
    )


def create(hub, request):
    asked = request.json()
    user = user_of(hub, request, needed=True)
    kind = f"{asked.get('type', 'model')}s"
    namespace = asked.get("organization") or user.name
    name = f"{namespace}/{asked['name']}"
    if not user.owns(namespace) or user.role != "write":
        raise Refusal(
            403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{namespace}"'
        )
    taken = KINDS if hub.one_name_for_all else (kind,)
    there = next((each for each in taken if (each, name) in hub.repos), None)
    prefix = "" if kind == "models" else f"{kind}/"
    url = f"{hub.url}/{prefix}{name}"
    if there is not None:
        text = f"You already created this {there[:-1]} repo"
        return Answer(409, {"error": text, "url": url}, {"X-Error-Message": text})
    hub.add_repo(name, kind, private=asked.get("visibility") == "private" or bool(asked.get("private")))
    return Answer(body={"url": url, "name": name, "id": "0" * 24})


def validate_yaml(hub, request):
    """Check the metadata of a card as far as possible without the Hub's own tables."""
    text = request.json()["content"].replace("\r\n", "\n")
    errors, warnings = [], []
    if not text.startswith("---\n"):
        warnings.append({"message": "empty or missing yaml metadata in repo card"})
    else:
        try:
            found = yaml.safe_load(text[4:].partition("\n---")[0])
            if not isinstance(found, dict):
                errors.append({"message": "the metadata must be a mapping"})
        except yaml.YAMLError as error:
            errors.append({"message": f"invalid YAML: {error}"})
    return Answer(400 if errors else 200, {"errors": errors, "warnings": warnings})


def info(hub, request, kind, name, revision=None):
    repo = repo_for(hub, request, kind, name)
    commit = commit_for(repo, revision) if revision else repo.head
    sized = "blobs" in request.query
    siblings = []
    for path, file in sorted(commit.files.items()):
        entry = {"rfilename": path}
        if sized:
            entry |= {"size": len(file.content), "blobId": file.oid}
            if file.large:
                pointer = len(file.pointer)
                entry["lfs"] = {"sha256": file.sha256, "size": len(file.content), "pointerSize": pointer}
        siblings.append(entry)
    card = _card(commit)
    content = {
        "_id": "0" * 24,
        "id": name,
        "author": name.partition("/")[0],
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": commit.date,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags", []),
        "cardData": card,
        "siblings": siblings,
    }
    if kind == "models":
        content |= {"modelId": name, "pipeline_tag": card.get("pipeline_tag") or _pipeline_tag(commit)}
        content["library_name"] = card.get("library_name", "transformers")
    return Answer(body=content)


def _card(commit):
    text = commit.files["README.md"].content.decode() if "README.md" in commit.files else ""
    if not text.startswith("---\n"):
        return {}
    return yaml.safe_load(text[4:].partition("\n---")[0]) or {}


def _pipeline_tag(commit):
    """Return the pipeline tag of a model from its config, as the Hub does."""
    if "config.json" not in commit.files:
        return None
    names = " ".join(json.loads(commit.files["config.json"].content).get("architectures") or [])
    endings = {
        "ForImageClassification": "image-classification",
        "ForSequenceClassification": "text-classification",
    }
    return next((tag for ending, tag in endings.items() if ending in names), None)


def refs(hub, request, kind, name):
    repo = repo_for(hub, request, kind, name)

    def listed(found, folder):
        return [
            {"name": each, "ref": f"refs/{folder}/{each}", "targetCommit": oid} for each, oid in found.items()
        ]

    content = {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}
    if "include_prs" in request.query:
        content["pullRequests"] = []
    return Answer(body=content)


def commits(hub, request, kind, name, revision):
    repo = repo_for(hub, request, kind, name)
    found = repo.history(commit_for(repo, revision))
    return Answer(
        body=[
            {
                "id": one.oid,
                "title": one.title,
                "message": one.description,
                "authors": [{"user": name.partition("/")[0]}],
                "date": one.date,
            }
            for one in found
        ]
    )


def tree(hub, request, kind, name, revision, path=""):
    commit = commit_for(repo_for(hub, request, kind, name), revision)
    recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
    found = _entries(commit, path)
    if path and not found:
        raise no_entry(path, commit.oid)
    if not recursive:
        depth = path.count("/") + 1 if path else 0
        found = [entry for entry in found if entry["path"].count("/") == depth]
    start = int(request.query.get("cursor", ["0"])[0])
    headers = {}
    if start + PAGE < len(found):
        rest = f"recursive={recursive}&cursor={start + PAGE}"
        headers["Link"] = f'<{hub.url}/{request.path}?{rest}>; rel="next"'
    return Answer(body=found[start : start + PAGE], headers=headers)


def _entries(commit, below=""):
    """Return the files and folders of a commit below a folder."""
    prefix = f"{below}/" if below else ""
    entries = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        steps = path.split("/")
        for depth in range(1, len(steps)):
            folder = "/".join(steps[:depth])
            if folder.startswith(prefix) and folder != below:
                oid = blob_id(folder.encode())
                entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        entries[path] = _entry(path, file)
    return list(entries.values())


def _entry(path, file):
    entry = {"type": "file", "oid": file.oid, "size": len(file.content), "path": path}
    if file.large:
        entry["lfs"] = {
            "oid": file.sha256,
            "size": len(file.content),
            "pointerSize": len(file.pointer),
        }
    return entry


def paths_info(hub, request, kind, name, revision):
    commit = commit_for(repo_for(hub, request, kind, name), revision)
    if "json" in request.headers.get("content-type", ""):
        wanted = request.json()["paths"]
    else:
        wanted = parse_qs(request.body.decode()).get("paths", [])
    every = {entry["path"]: entry for entry in _entries(commit)}
    return Answer(body=[every[path] for path in wanted if path in every])


def auth_check(hub, request, kind, name, write=None):
    repo_for(hub, request, kind, name, write=bool(write))
    readable_files(hub, request, kind, name)
    return Answer()


def settings(hub, request, kind, name):
    repo = repo_for(hub, request, kind, name, write=True)
    asked = request.json()
    if "visibility" in asked:
        repo.private = asked["visibility"] == "private"
    if "gated" in asked:
        repo.gated = bool(asked["gated"])
    return Answer(body={"private": repo.private, "gated": repo.gated})


def branch(hub, request, kind, name, branch):
    repo = repo_for(hub, request, kind, name, write=True)
    if request.method == "DELETE":
        if branch == "main" or repo.branches.pop(branch, None) is None:
            raise Refusal(404 if branch != "main" else 403, f"Cannot delete branch {branch}")
        return Answer()
    if branch in repo.branches:
        raise Refusal(409, f"Reference already exists: refs/heads/{branch}")
    start = request.json().get("startingPoint") or "main"
    repo.branches[branch] = commit_for(repo, start).oid
    return Answer(201)


def tag(hub, request, kind, name, revision):
    """Create a tag on a revision, or delete one."""
    repo = repo_for(hub, request, kind, name, write=True)
    if request.method == "DELETE":
        if repo.tags.pop(revision, None) is None:
            raise Refusal(404, f"Invalid rev id: refs/tags/{revision}", "RevisionNotFound")
        return Answer()
    wanted, commit = request.json()["tag"], commit_for(repo, revision)
    if wanted in repo.tags:
        raise Refusal(409, f"Tag reference exists already: refs/tags/{wanted}")
    repo.tags[wanted] = commit.oid
    return Answer(201)


def preupload(hub, request, kind, name, revision):
    """Return for each file whether it is uploaded to git or as a large file, and its current content id."""
    commit = commit_for(repo_for(hub, request, kind, name, write=True), revision)
    found = []
    for file in request.json()["files"]:
        path = file["path"]
        large = is_large_file(path, file["size"], base64.b64decode(file["sample"]))
        entry = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if path in commit.files:
            entry["oid"] = commit.files[path].etag
        found.append(entry)
    return Answer(body={"files": found, "commitOid": commit.oid})


def commit(hub, request, kind, name, revision):
    """Commit all lines, or none."""
    repo = repo_for(hub, request, kind, name, write=True)
    if revision not in repo.branches:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    if request.headers.get("content-type") != "application/x-ndjson":
        raise Refusal(400, "The payload must be newline-delimited JSON")
    base = commit_for(repo, revision)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    if not lines or lines[0]["key"] != "header" or not lines[0]["value"].get("summary"):
        raise Refusal(400, "The first line must be a header with a summary")
    header = lines[0]["value"]
    parent = header.get("parentCommit")
    if parent is not None and not base.oid.startswith(parent):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(base.files)
    for line in lines[1:]:
        _apply(hub, files, line["key"], line["value"])
    made = repo.commit(revision, files, header["summary"], header.get("description", ""))
    prefix = "" if kind == "models" else f"{kind}/"
    return Answer(
        body={
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{hub.url}/{prefix}{name}/commit/{made.oid}",
            "hookOutput": "",
        }
    )


def _apply(hub, files, key, value):
    path = value["path"]
    if key == "file":
        assert value["encoding"] == "base64"
        files[path] = File(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in hub.large:
            raise Refusal(400, f"Your push was rejected: {path} points to a large file that is not here")
        files[path] = File(hub.large[value["oid"]], large=True)
    elif key in ("deletedFile", "deletedFolder"):
        folder = path.rstrip("/") + "/"
        gone = [path] if key == "deletedFile" else [each for each in files if each.startswith(folder)]
        if not all(each in files for each in gone) or not gone:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        for each in gone:
            del files[each]
    else:
        raise Refusal(400, f"Unknown operation {key}")


KIND = r"api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
REV = r"(?P<revision>(?:refs/\w+/)?[^/]+)"
ROUTES = [
    ("GET", r"api/whoami-v2", whoami),
    ("POST", r"api/repos/create", create),
    ("POST", r"api/validate-yaml", validate_yaml),
    ("GET", KIND, info),
    ("GET", rf"{KIND}/revision/{REV}", info),
    ("GET", rf"{KIND}/refs", refs),
    ("GET", rf"{KIND}/commits/{REV}", commits),
    ("GET", rf"{KIND}/tree/{REV}(?:/(?P<path>.+))?", tree),
    ("POST", rf"{KIND}/paths-info/{REV}", paths_info),
    ("GET", rf"{KIND}/auth-check(?P<write>/write)?", auth_check),
    ("PUT", rf"{KIND}/settings", settings),
    ("POST DELETE", rf"{KIND}/branch/(?P<branch>.+)", branch),
    ("POST DELETE", rf"{KIND}/tag/{REV}", tag),
    ("POST", rf"{KIND}/preupload/{REV}", preupload),
    ("POST", rf"{KIND}/commit/{REV}", commit),
]
