"""RayJobs on Kubernetes, through kubectl: sent, followed to the job's own exit code."""

import json
import re
import shutil
import subprocess
import time
from typing import Any

from threephase_ray.console import console
from threephase_ray.errors import ResourceError
from threephase_ray.submitting.printing import Printer

_ENDED = ("Complete", "Failed")  # of jobDeploymentStatus
_SECONDS = 3.0  # between two looks
_CODE = re.compile(r"failed with exit code (-?\d+)")  # Ray's words, which KubeRay hands on


class RayJobs:
    """The RayJobs of a namespace."""

    def __init__(self, namespace: str | None) -> None:
        """`namespace`: None for that of kubectl's context.

        Raises:
            ResourceError: there is no kubectl.
        """
        found = shutil.which("kubectl")
        if found is None:
            raise ResourceError(
                "kubectl: is not installed, or not in PATH\n  install it, or let --dry-run print the RayJob and apply it elsewhere"
            )
        self._where = ["--namespace", namespace] if namespace else []
        self._command = [found, *self._where]

    def is_running(self, name: str) -> bool:
        """Whether a RayJob of the name is there and has not ended."""
        found = self._status(name)
        if found is None or found.get("jobDeploymentStatus") in _ENDED:
            return False
        console.print(f"rayjob/{name} is at work already: following it", highlight=False)
        return True

    def send(self, name: str, documents: str) -> None:
        """Apply the documents; a RayJob of the name that has ended makes room, for each one runs once."""
        self._do("delete", "rayjob", name, "--ignore-not-found")
        console.print(self._do("apply", "-f", "-", content=documents).strip(), highlight=False)

    def follow(self, name: str) -> int:
        """Print what the job prints until it ends; its exit code. Ctrl-C leaves it at work."""
        try:
            return self._follow(name)
        except KeyboardInterrupt:
            self.left(name)
            return 130

    def left(self, name: str) -> int:
        """Say how to come back to a job that goes on."""
        where = " ".join(["", *self._where])
        console.print(f"rayjob/{name} goes on. Give the same command again to follow it", highlight=False)
        console.print(f"  kubectl{where} logs --follow job/{name}\n  kubectl{where} delete rayjob {name}", highlight=False, soft_wrap=True)
        return 0

    def _follow(self, name: str) -> int:
        printers, told = dict[str, Printer](), ""  # each attempt has a log of its own
        while (status := self._status(name)) is not None:
            state = str(status.get("jobDeploymentStatus", "New"))
            if state != told:
                console.print(f"rayjob/{name}: {state}", highlight=False)
            told = state
            if state in ("Running", *_ENDED):
                self._print(name, printers.setdefault(str(status.get("jobId")), Printer()))
            if state in _ENDED:
                return _ended(name, status)
            time.sleep(_SECONDS)
        raise ResourceError(
            f"rayjob/{name}: was removed while it was followed\n  give the same command again to go on from its last checkpoint"
        )

    def _status(self, name: str) -> dict[str, Any] | None:
        """What KubeRay says of a RayJob; None where there is none."""
        found = self._do("get", "rayjob", name, "--ignore-not-found", "-o", "json")
        return dict(json.loads(found).get("status", {})) if found.strip() else None

    def _print(self, name: str, printer: Printer) -> None:
        """Print the submitter's log, which is the job's, for as long as it comes."""
        printer.begin()
        command = [*self._command, "logs", "--follow", f"job/{name}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as logs:
            assert logs.stdout is not None
            for line in logs.stdout:
                printer.add(line)

    def _do(self, *words: str, content: str | None = None) -> str:
        """What kubectl prints.

        Raises:
            ResourceError: it fails.
        """
        done = subprocess.run([*self._command, *words], input=content, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = " ".join(done.stderr.split())[:300]
            raise ResourceError(f"kubectl {words[0]}: {reason}\n  is the context the right one, and KubeRay's operator installed?")
        return done.stdout


def _ended(name: str, status: dict[str, Any]) -> int:
    """The exit code of a job that has ended, which is printed."""
    message = str(status.get("message", ""))
    match = _CODE.search(message)
    code = 0 if status.get("jobStatus") == "SUCCEEDED" else int(match[1]) if match else 1
    reason = "" if code == 0 or match else f": {' '.join((str(status.get('reason', '')), message)).strip()[:300]}"
    console.print(f"rayjob/{name}: exit code {code}{reason}", highlight=False, soft_wrap=True)
    return code
