"""An S3 server for tests that survives being killed, and a proxy before it that makes the network bad.

python -m tests.integration.s3 PORT JOURNAL runs the server. Every request that changed something is in the journal before it is
answered, and a server that starts with a journal does all of it again. Requests are served one at a time, as if at one instant.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

BUCKET, USER = "bucket", "tester"
ROOT = Path(__file__).resolve().parents[2]
_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) /")
_DENIED = b"<Error><Code>InvalidAccessKeyId</Code><Message>The access key is not known</Message></Error>"


def credentials(user: str = USER) -> dict[str, str]:
    """Environment of a client."""
    return {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull}


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Server:
    """The server as a process of its own, with an empty bucket; `journal` keeps its state."""

    def __init__(self, journal: Path) -> None:
        self.port, self._journal = free_port(), journal
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()
        self.request("PUT", BUCKET)

    def start(self) -> None:
        """Start it with what the journal holds, and wait until it answers."""
        command = [sys.executable, "-m", "tests.integration.s3", str(self.port), str(self._journal)]
        path = os.pathsep.join([str(ROOT), *sys.path])
        with self._journal.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log)
        while self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError(self._journal.with_suffix(".log").read_text())

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def request(self, method: str, path: str) -> None:
        """One plain request, such as making or removing the bucket."""
        import botocore.session  # here, for the server needs none

        client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=USER,
            aws_secret_access_key="secret",  # noqa: S106
        )
        client.create_bucket(Bucket=path) if method == "PUT" else client.delete_bucket(Bucket=path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Proxy:
    """Forwards connections to `port`. Set `rate` (bytes/s of each direction), `failing` (share of requests) or `cut` at any time.

    A failing request is closed before the server sees it, answered by 503, or done by the server with its answer lost.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._target, self._random = port, random.Random(seed)  # noqa: S311
        self.rate, self.failing, self.cut, self.failures = None, 0.0, False, 0
        self.rate: float | None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        """Two threads for each connection."""
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                lost = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, self._request, lost), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, self._answer, lost), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, judge: Callable[..., bool], lost: threading.Event) -> None:
        """Pass bytes on until one side closes, or until `judge` says no."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as both:
            for end in (source, target):
                both.callback(end.close)
                both.callback(lambda end=end: end.shutdown(socket.SHUT_RDWR))
            while (chunk := source.recv(65536)) and not self.cut and judge(chunk, source, lost):
                if self.rate is not None:
                    time.sleep(len(chunk) / self.rate)
                target.sendall(chunk)

    def _request(self, chunk: bytes, client: socket.socket, lost: threading.Event) -> bool:
        """Whether a chunk from the client may pass; where a request begins, it may be its turn to fail."""
        if not _REQUEST.match(chunk) or self._random.random() >= self.failing:
            return True
        self.failures += 1
        kind = self._random.randrange(3)
        if kind == 0:
            client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif kind == 1:
            lost.set()
        return kind == 1

    def _answer(self, chunk: bytes, server: socket.socket, lost: threading.Event) -> bool:
        """Whether a chunk from the server may pass."""
        return not lost.is_set() or chunk.startswith(b"HTTP/1.1 100")


def application(journal: Path) -> Callable[..., Iterable[bytes]]:
    """moto's S3 behind a journal; what is in the journal already is done again first."""
    from moto.s3 import models
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.test import run_wsgi_app

    number, original = itertools.count(1), models.FakeMultipart.__init__

    def numbered(self: Any, *args: Any, **options: Any) -> None:
        """Uploads in parts have the same ids when they are done again."""
        original(self, *args, **options)
        self.id = f"upload{next(number)}"

    models.FakeMultipart.__init__ = numbered
    backend, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
    for environ, body in _read(journal):
        run_wsgi_app(backend, environ | {"wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr}, buffered=True)
    log = journal.open("a")

    def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read() if environ.get("wsgi.input_terminated") else _body(environ)
        if len(body) < int(environ.get("CONTENT_LENGTH") or 0):
            start("400 Bad Request", [])
            return []
        if f"Credential={USER}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [_DENIED]
        with lock:
            answer, status, headers = run_wsgi_app(backend, environ | {"wsgi.input": io.BytesIO(body)}, buffered=True)
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and status.startswith("2"):
                kept = {name: value for name, value in environ.items() if isinstance(value, str)}
                log.write(json.dumps([kept, base64.b64encode(body).decode()]) + "\n")
                log.flush()
        start(status, list(headers))
        return list(answer)

    return serve


def _body(environ: dict[str, Any]) -> bytes:
    """The request's body, shorter than announced if the client went away."""
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _read(journal: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The requests of a journal; its last line may be cut short."""
    for line in journal.read_text().splitlines() if journal.exists() else ():
        with contextlib.suppress(ValueError):
            environ, body = json.loads(line)
            yield environ, base64.b64decode(body)


if __name__ == "__main__":
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import run_simple

    MotoRequestHandler.disable_nagle_algorithm = True  # else each answer of two parts takes 40 ms
    run_simple("127.0.0.1", int(sys.argv[1]), application(Path(sys.argv[2])), threaded=True, request_handler=MotoRequestHandler)
