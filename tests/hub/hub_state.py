"""State of the test Hub: repositories with their commits, large files, users and their tokens."""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

KINDS = ("models", "datasets", "spaces")
LARGE_ENDINGS = (
    *(".safetensors", ".bin", ".pt", ".onnx", ".msgpack", ".model"),
    *(".parquet", ".arrow", ".zip", ".gz", ".png", ".jpg", ".jpeg"),
)
LARGE_SIZE = 10 * 1024 * 1024
ATTRIBUTES = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE_ENDINGS).encode()


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def blob_id(content):
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large_file(path, size, sample):
    return path.lower().endswith(LARGE_ENDINGS) or size > LARGE_SIZE or b"\0" in sample


@dataclass(frozen=True)
class File:
    """A file of a commit: its content, and whether git has only a pointer to it."""

    content: bytes
    large: bool = False

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self):
        lines = (
            "version https://git-lfs.github.com/spec/v1",
            f"oid sha256:{self.sha256}",
            f"size {len(self.content)}",
        )
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def oid(self):
        return blob_id(self.pointer if self.large else self.content)

    @property
    def etag(self):
        return self.sha256 if self.large else self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    description: str
    date: str
    files: dict[str, File]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.branches:
            self.commit("main", {".gitattributes": File(ATTRIBUTES)}, "initial commit")

    @property
    def head(self):
        return self.commits[self.branches["main"]]

    def resolve(self, revision):
        """Return the commit of a branch, tag, ref or prefix of a commit's name."""
        short = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(short) or self.tags.get(short)
        if oid is None and len(revision) >= 7:
            oid = next((each for each in self.commits if each.startswith(revision)), None)
        return self.commits.get(oid)

    def commit(self, branch, files, title, description=""):
        parent = self.branches.get(branch)

        oid = secrets.token_hex(20)
        self.commits[oid] = Commit(oid, parent, title, description, now(), dict(files))
        self.branches[branch] = oid
        return self.commits[oid]

    def history(self, commit):
        while commit is not None:
            yield commit
            commit = self.commits.get(commit.parent)


@dataclass(frozen=True)
class User:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def owns(self, namespace):
        return namespace == self.name or namespace in self.orgs


@dataclass(frozen=True)
class Seen:
    """A received request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hub:
    """The state of the Hub, and its requests.

    Attributes:
        url: Its address.
        cdn: Its other address, from which large files come: tokens must not go there.
        repos: By kind and name.
        moved: The new name of repositories that were renamed, by kind and old name.
        large: Content of large files by SHA-256, those in no commit too.
        users: By their tokens.
        seen: All requests in order.
        part_size: Bytes from which on a large file is uploaded in parts.
        size_limit: Bytes that no file may exceed.
        one_name_for_all: Whether a model, a dataset and a space cannot have the same name.
    """

    url: str = ""
    cdn: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    moved: dict[tuple[str, str], str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    part_size: int = 50 * 1024 * 1024
    size_limit: int = 50 * 10**9
    one_name_for_all: bool = False

    def add_repo(self, name, kind="models", files=None, **options):
        """Add a repository with its files in one commit; large ones are recognized by their extension."""
        repo = self.repos[kind, name] = Repo(kind, name, **options)
        if files:
            made = {
                path: File(content, is_large_file(path, len(content), content[:512]))
                for path, content in files.items()
            }
            repo.commit("main", {**repo.head.files, **made}, "add files")
        return repo

    def model(self, name):
        return self.repos["models", name]

    def requests(self, method=None, containing=""):
        return [
            seen
            for seen in self.seen
            if (method is None or seen.method == method) and containing in seen.path
        ]
