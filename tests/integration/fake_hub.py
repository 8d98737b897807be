"""A FAKE of a model hub's HTTP API, as `huggingface_hub` calls it to send a folder: a real server on loopback that keeps what came.

It knows one token. Files of weights go through LFS, the others into the commit, as on the real one; Xet is not spoken.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

TOKEN = "hf_right"  # noqa: S105
Answer = tuple[int, dict[str, Any]]


@dataclass
class Repo:
    """A repository: its files, and which of them are in LFS."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, str] = field(default_factory=dict)  # path -> SHA-256
    commits: list[str] = field(default_factory=list)

    def oid(self, path: str) -> str | None:
        """What identifies a file's content: SHA-256 in LFS, else git's SHA-1."""
        if path not in self.files:
            return None
        blob = b"blob %d\0" % len(self.files[path]) + self.files[path]
        return self.large.get(path, hashlib.sha1(blob).hexdigest())  # noqa: S324


class FakeHub:
    """The server, for as long as the block lasts; `requests` are those that came, in order."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self._blobs: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            """Hands each request to the hub."""

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content = hub.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
                self.send_response(status)
                written = json.dumps(content).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent(self, method: str, pattern: str) -> list[str]:
        """The requests whose address fits."""
        return [request for request in self.requests if re.fullmatch(f"{method} {pattern}", request)]

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> Answer:
        """Status and content."""
        self.requests.append(f"{method} {path}")
        routes: list[tuple[str, Callable[..., Answer]]] = [
            (r"PUT /lfs/(\w+)", self._upload),  # a signed address: no token
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", lambda body: (200, {"errors": [], "warnings": []})),
            (r"GET /api/models/([\w.-]+/[\w.-]+)(?:/revision/main)?", self._info),
            (r"POST /api/models/([\w.-]+/[\w.-]+)/preupload/main", self._preupload),
            (r"POST /([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self._batch),
            (r"POST /api/models/([\w.-]+/[\w.-]+)/commit/main", self._commit),
        ]
        for pattern, route in routes:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                if route != self._upload and authorization != f"Bearer {TOKEN}":
                    return 401, {"error": "Invalid username or password."}
                return route(*found.groups(), body)
        return 404, {"error": "Not found"}

    def _create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.repos else 200
        self.repos.setdefault(name, Repo(asked["visibility"] == "private"))
        return status, {"url": f"{self.endpoint}/{name}", "error": "You already created this model repo"}

    def _info(self, name: str, _: bytes) -> Answer:
        commits = self.repos[name].commits
        return 200, {"id": name, "private": self.repos[name].private, "sha": commits[-1] if commits else None}

    def _preupload(self, name: str, body: bytes) -> Answer:
        files = []
        for path in (file["path"] for file in json.loads(body)["files"]):
            mode = "lfs" if path.endswith(".safetensors") else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": self.repos[name].oid(path)})
        return 200, {"files": files}

    def _batch(self, _: str, body: bytes) -> Answer:
        objects = []
        for wanted in json.loads(body)["objects"]:
            href = {"upload": {"href": f"{self.endpoint}/lfs/{wanted['oid']}"}}
            objects.append(wanted | ({} if wanted["oid"] in self._blobs else {"actions": href}))
        return 200, {"transfer": "basic", "objects": objects}

    def _upload(self, oid: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "other bytes than announced"}
        self._blobs[oid] = body
        return 200, {}

    def _commit(self, name: str, body: bytes) -> Answer:
        repo = self.repos[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                repo.files[value["path"]], repo.large[value["path"]] = self._blobs[value["oid"]], value["oid"]
        repo.commits.append(hashlib.sha1(body).hexdigest())  # noqa: S324
        return 200, {"commitUrl": f"{self.endpoint}/{name}/commit/{repo.commits[-1]}", "commitOid": repo.commits[-1]}
