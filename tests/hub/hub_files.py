"""Files of the test Hub: downloads with ETag and range, and uploads of large files in one or more parts."""

import hashlib
import re
from math import ceil
from urllib.parse import quote

from hub_answers import Answer, Refusal, commit_for, no_entry, readable_files, repo_for

LFS = "application/vnd.git-lfs+json"


def resolve(hub, request, name, revision, path, kind=None):
    """Return a file. A large one is redirected to another address, with its ETag and size in the redirect."""
    kind = kind or "models"
    if (kind, name) in hub.moved:
        prefix = "" if kind == "models" else f"{kind}/"
        target = f"/{prefix}{hub.moved[kind, name]}/resolve/{quote(revision, safe='')}/{quote(path)}"
        return Answer(307, headers={"Location": target})
    commit = commit_for(readable_files(hub, request, kind, name), revision)
    if path not in commit.files:
        raise no_entry(path, commit.oid)
    file = commit.files[path]
    headers = {
        "X-Repo-Commit": commit.oid,
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.etag}"',
        "Content-Disposition": f'inline; filename="{path.rpartition("/")[2]}"',
    }
    if not file.large:
        return _content(request, file.content, headers)
    hub.large[file.sha256] = file.content
    headers |= {
        "X-Linked-ETag": f'"{file.sha256}"',
        "X-Linked-Size": str(len(file.content)),
        "Location": f"{hub.cdn}/cdn/{file.sha256}",
    }
    return Answer(302, headers=headers)


def cdn(hub, request, oid):
    if "authorization" in request.headers:
        raise Refusal(400, "A token of the hub was sent to another host")
    return _content(request, hub.large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _content(request, content, headers):
    """Return the content, or the requested range of it."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not asked:
        return Answer(200, content, headers)
    size = len(content)
    first, last = asked[1], asked[2]
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if start >= size:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    piece = content[start : end + 1]
    return Answer(206, piece, {**headers, "Content-Range": f"bytes {start}-{end}/{size}"})


def batch(hub, request, name, kind=None):
    """Return the upload actions of large files: none if present, one request, or several parts."""
    repo_for(hub, request, kind or "models", name, write=True)
    asked = request.json()
    if asked["operation"] != "upload" or asked["hash_algo"] != "sha256":
        raise Refusal(422, "Only uploads of files by their SHA-256")
    objects = [_place(hub, one, f"{hub.url}/{request.path}") for one in asked["objects"]]
    return Answer(body={"transfer": "basic", "objects": objects}, headers={"Content-Type": LFS})


def _place(hub, one, address):
    oid, size = one["oid"], one["size"]
    placed = {"oid": oid, "size": size, "authenticated": True}
    if size > hub.size_limit:
        text = f"File too large: {size} bytes exceeds the limit of {hub.size_limit} bytes"
        return {**placed, "error": {"code": 422, "message": text}}
    if oid in hub.large:
        return placed
    upload = {"href": f"{hub.cdn}/store/{oid}"}
    if size > hub.part_size:
        count = ceil(size / hub.part_size)
        parts = {str(number): f"{hub.cdn}/store/{oid}/{number}" for number in range(1, count + 1)}
        upload = {
            "href": f"{hub.url}/complete/{oid}",
            "header": {"chunk_size": str(hub.part_size), **parts},
        }
    verify = {"href": address.removesuffix("objects/batch") + "verify", "header": {}}
    return {**placed, "actions": {"upload": upload, "verify": verify}}


def verify(hub, request, name, kind=None):
    repo_for(hub, request, kind or "models", name, write=True)
    asked = request.json()
    if len(hub.large.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(404, "The large file is not here, or not whole")
    return Answer()


def store(hub, request, oid):
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, "The content is not what was announced")
    hub.large[oid] = request.body
    return Answer(headers={"ETag": f'"{oid}"'})


def store_part(hub, request, oid, number):
    hub.parts[oid, int(number)] = request.body
    return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def complete(hub, request, oid):
    """Join the parts in the order of the client, each by its number and ETag."""
    asked = request.json()
    pieces = []
    for part in asked["parts"]:
        piece = hub.parts.pop((oid, part["partNumber"]))
        if part["etag"].strip('"') != hashlib.md5(piece).hexdigest():
            raise Refusal(400, f"Part {part['partNumber']} has another ETag")
        pieces.append(piece)
    content = b"".join(pieces)
    if asked["oid"] != oid or hashlib.sha256(content).hexdigest() != oid:
        raise Refusal(400, "The parts are not what was announced")
    hub.large[oid] = content
    return Answer(body={"success": True})


NAME = r"(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"
OID = r"(?P<oid>[0-9a-f]{64})"
ROUTES = [
    ("GET HEAD", rf"{NAME}/resolve/(?P<revision>(?:refs/\w+/)?[^/]+)/(?P<path>.+)", resolve),
    ("GET HEAD", rf"cdn/{OID}", cdn),
    ("POST", rf"{NAME}\.git/info/lfs/objects/batch", batch),
    ("POST", rf"{NAME}\.git/info/lfs/verify", verify),
    ("PUT", rf"store/{OID}", store),
    ("PUT", rf"store/{OID}/(?P<number>\d+)", store_part),
    ("POST", rf"complete/{OID}", complete),
]
