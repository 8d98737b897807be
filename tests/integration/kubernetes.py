"""As much of a Kubernetes API server as kubectl needs to apply, get, delete and wait for objects, and an operator that lets RayJobs run."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.integration import protobuf

KINDS = {  # by the path of their group: plural names and kinds
    "/api/v1": {
        "configmaps": "ConfigMap",
        "namespaces": "Namespace",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "pods": "Pod",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
    },
    "/apis/ray.io/v1": {"rayclusters": "RayCluster", "rayjobs": "RayJob"},
    "/apis/batch/v1": {"jobs": "Job"},
    "/apis/monitoring.coreos.com/v1": {"podmonitors": "PodMonitor"},
    "/apis/networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "/apis/policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}
VERBS = ["create", "delete", "get", "list", "patch"]
OBJECT = re.compile(
    r"(?P<group>/api/v1|/apis/[a-z0-9.]+/v1)/(namespaces/(?P<namespace>[a-z0-9-]+)/)?(?P<kind>[a-z]+)(/(?P<name>[a-z0-9-]+))?(/log)?"
)
CODES = {
    "Complete": ("SUCCEEDED", ""),
    "Failed": ("FAILED", "Job entrypoint command failed with exit code 4, last available logs (truncated):\n"),
}


class Server:
    """Runs for as long as the block lasts. Each look at a RayJob finds it in the next of `states`, in the end in the last one."""

    def __init__(self, states: list[str], log: str) -> None:
        self.states, self.log = states, log
        self.objects: dict[str, dict[str, Any]] = {}  # by path
        self.requests: list[tuple[str, str]] = []  # method and path of all that change something
        self._looks = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def config(self, path: Path) -> Path:
        """A kubeconfig that leads here."""
        cluster = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "team"}}
        content = {"apiVersion": "v1", "kind": "Config", "current-context": "test", "clusters": [cluster], "contexts": [context]}
        path.write_text(json.dumps(content | {"users": [{"name": "test", "user": {}}]}))
        return path

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Status and content; text is a log."""
        if method != "GET":
            self.requests.append((method, path))
        if (found := discovered(path)) is not None:
            return 200, found
        match = OBJECT.fullmatch(path)
        if match is None:
            return 404, status(404)
        if method == "POST" and body is not None:
            name = f"{path}/{body['metadata']['name']}"
            self.objects[name] = body
            self._looks = 0
            return 201, body
        if method == "DELETE":
            return (200, self.objects.pop(path)) if path in self.objects else (404, status(404))
        if method == "PATCH":
            return (200, self.objects[path]) if path in self.objects else (404, status(404))
        return self._get(match, path)

    def _get(self, match: re.Match[str], path: str) -> tuple[int, Any]:
        """The submitter's job and pod are made up, all else is what was created."""
        if path.endswith("/log"):
            return 200, self.log
        if match["kind"] == "jobs":
            selector = {"matchLabels": {"job-name": match["name"]}}
            return 200, {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta(match), "spec": {"selector": selector, "template": {}}}
        if match["kind"] == "pods":
            container = {"name": "submitter", "image": "x"}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta(match, "submitter"), "spec": {"containers": [container]}}
            pod["status"] = {"phase": "Running"}
            return 200, pod if match["name"] else {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]}
        if not match["name"]:
            kind = KINDS[match["group"]][match["kind"]]
            items = [self._found(each) for each in self.objects if each.startswith(f"{path}/")]
            return 200, {"apiVersion": match["group"].split("/", 2)[2], "kind": f"{kind}List", "metadata": {}, "items": items}
        return (200, self._found(path)) if path in self.objects else (404, status(404))

    def _found(self, path: str) -> dict[str, Any]:
        """An object as it is by now."""
        found = self.objects[path]
        if found["kind"] == "RayJob":
            state = self.states[min(self._looks, len(self.states) - 1)]
            self._looks += 1
            job, message = CODES.get(state, ("RUNNING", ""))
            found["status"] = {"jobDeploymentStatus": state, "jobStatus": job, "message": message, "jobId": "one"}
        return found

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if "protobuf" in self.headers.get("Content-Type", ""):
                    body = protobuf.decoded(content)
                else:
                    body = json.loads(content) if content and self.command in ("POST", "PATCH") else None
                code, found = server.answer(self.command, urlsplit(self.path).path, body)
                text = found if isinstance(found, str) else json.dumps(found)
                self.send_response(code)
                self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        return Handler


def meta(match: re.Match[str], name: str | None = None) -> dict[str, Any]:
    """Name and namespace of an object."""
    return {"name": match["name"] or name, "namespace": match["namespace"]}


def status(code: int) -> dict[str, Any]:
    """How the API says no."""
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "not found", "code": code}


def discovered(path: str) -> Any:
    """What kubectl asks for to know what there is, and with which fields; None for all else."""
    groups = [group.split("/")[2] for group in KINDS if group.startswith("/apis/")]
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = {group: {"groupVersion": f"{group}/v1", "version": "v1"} for group in groups}
        listed = [{"name": group, "versions": [version], "preferredVersion": version} for group, version in versions.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if path in KINDS:
        resources = [
            {"name": each, "singularName": kind.lower(), "namespaced": each != "namespaces", "kind": kind, "verbs": VERBS}
            for each, kind in KINDS[path].items()
        ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": path.removeprefix("/apis/").removeprefix("/api/"),
            "resources": resources,
        }
    if path == "/openapi/v3":
        return {"paths": {group[1:]: {"serverRelativeURL": f"/openapi/v3{group}"} for group in KINDS}}
    if path.removeprefix("/openapi/v3") in KINDS:
        return schema(path.removeprefix("/openapi/v3"))
    return None


def schema(group: str) -> dict[str, Any]:
    """OpenAPI that says no more than that the server itself looks at the fields."""
    name = "" if group == "/api/v1" else group.split("/")[2]
    looks = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths = {}
    for each, kind in KINDS[group].items():
        known = {"group": name, "version": "v1", "kind": kind}
        paths[f"{group}/namespaces/{{namespace}}/{each}/{{name}}"] = {
            "patch": {"parameters": looks, "x-kubernetes-group-version-kind": known}
        }
    return {"openapi": "3.0.0", "info": {"title": "test", "version": "v1"}, "paths": paths}
