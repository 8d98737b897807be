"""Programs and jobs that only make a plan, each in a fork of one process that has the libraries loaded: that saves five CPU seconds each.

`python -m tests.integration.warm` reads lines of JSON, the words of a job's command, and writes its exit code and output for each.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO


class Warm:
    """That process, in the project's folder, once somebody asks for a plan."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self._root, self._environment = root, environment | {"TOKENIZERS_PARALLELISM": "false"}
        self._process: subprocess.Popen[str] | None = None

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """A script as if it were started by itself: `words` are its name and flags."""
        if self._process is None:
            path = os.pathsep.join([self._environment["PYTHONPATH"], str(Path(__file__).parents[2])])
            command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
            environment = self._environment | {"PYTHONPATH": path}
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, cwd=self._root, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        code, output = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, code, output, "")

    def close(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
            self._process.wait()


def child(words: list[str], output: IO[str]) -> None:
    """Be the script; never returns."""
    code: object = 1
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.argv, sys.path = words, [str(Path(words[0]).parent), *sys.path[1:]]
        try:
            sys.stdin.close()
            runpy.run_path(words[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:  # as an interpreter would, for this process is none
            traceback.print_exc()
        output.flush()
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """Fork for each line."""
    from threephase_ray import data, planning  # noqa: F401

    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as output:
            if not (number := os.fork()):
                child(json.loads(line), output)
            _, status = os.waitpid(number, 0)
            output.seek(0)
            print(json.dumps([os.waitstatus_to_exitcode(status), output.read()]), flush=True)


if __name__ == "__main__":
    main()
