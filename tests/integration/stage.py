"""A copy of the project with texts, a cluster, a bucket, a hub and a Kubernetes beside it, where documented commands run as written."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.processes import Limit, TooLong, free_port
from tests.integration import kubernetes, makefile, places, s3, standins
from tests.integration.documents import Piece
from tests.integration.fake_hub import TOKEN, FakeHub
from tests.integration.warm import Warm
from tests.unit import test_export, tiny, tiny_models
from threephase_ray import command
from threephase_ray.config import Config, Job
from threephase_ray.demo import TEXTS_SHA256
from threephase_ray.exporting import ExportConfig
from threephase_ray.serving import ServeConfig
from threephase_ray.submitting import asking

PARTS = (
    "Makefile",
    "README.md",
    "benchmarks",
    "cluster",
    "constraints.txt",
    "docs",
    "jobs",
    "pyproject.toml",
    "tests",
    "threephase_ray",
    ".gitignore",
)
JOBS: dict[str, type[Job]] = asking.JOBS | {"submit": Config, "export": ExportConfig, "serve": ServeConfig}
ENTRY = re.compile(r"# python jobs/(?P<job>\w+)\.py .*--config \S+\.yaml.*")  # opens a configuration
PLAN = re.compile(r"\.venv/bin/python jobs/(?!submit)\w+\.py .*--dry-run\b.*", re.DOTALL)  # starts nothing
LABELS = ("account", "billing", "delivery")
SECONDS = 200.0  # that a command may take


@dataclass
class Stage:
    """Where commands run."""

    root: Path
    environment: dict[str, str]
    places: dict[str, str]  # what the stand-ins name
    warm: Warm
    service: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, piece: Piece, long: bool = False) -> str:
        """Run one piece; what it printed, or an AssertionError with it."""
        text = standins.changed(piece, self.places, long)
        if "curl " not in text:
            self.stop()
        if piece.kind == "python":
            (self.root / "program.py").write_text(text, encoding="utf-8")
            return self.ended(text, self.warm.run(["program.py"]))
        if piece.kind == "yaml":
            return self.configuration(text)
        if text.startswith("make "):
            return self.make(text)
        if standins.SERVICE in text and "--dry-run" not in text:
            return self.start(text)
        return self.shell(text, standins.settings(piece.text, self.places))

    def shell(self, text: str, more: dict[str, str] | None = None) -> str:
        """What a command prints."""
        command = ["/bin/bash", "-e", "-u", "-o", "pipefail", "-c", text]
        if PLAN.fullmatch(text):
            done = self.warm.run(shlex.split(text.replace("\\\n", " "))[1:])
        else:
            environment = self.environment | (more or {})
            done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
        return self.ended(text, done)

    def ended(self, text: str, done: subprocess.CompletedProcess[str]) -> str:
        """What it printed, if it ended with 0."""
        assert done.returncode == 0, f"{text}\nended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def configuration(self, text: str) -> str:
        """Put a configuration where its first line says, and read it as the job of that line does, with the files that it names."""
        entry = ENTRY.match(text)
        assert entry, f"the first line is no command: # python jobs/train.py --config FILE.yaml\n{text}"
        files = [str(self.root / name) for name in re.findall(r"--config (\S+)", entry[0])]
        Path(files[-1]).write_text(text, encoding="utf-8")
        config = command.read(files, [], JOBS[entry["job"]])
        return command.dump(config)

    def make(self, text: str) -> str:
        """What the target would run, if it could be run; with flags it is one job, which is run with them."""
        words = text.split()
        printed = self.shell(f"make --no-print-directory -n -o .venv/ready {words[1]}")
        for line in makefile.lines(printed):
            problem = makefile.problem(line, self.root, printed)
            assert not problem, f"{text}: {line}\n{problem}"
        return self.shell(" ".join([printed.strip(), *words[2:]])) if words[2:] else printed

    def start(self, text: str) -> str:
        """Start a service, and wait until it says that it serves."""
        output = self.root.parent / "service.log"
        with output.open("wb") as file:
            process = subprocess.Popen(["/bin/bash", "-c", f"exec {text}"], cwd=self.root, env=self.environment, stdout=file, stderr=file)
        try:
            Limit(SECONDS).until(lambda: b"serving at" in output.read_bytes() or process.poll() is not None, "the service", 0.1)
        except TooLong:
            process.kill()
            raise
        assert process.poll() is None, f"{text}\n{output.read_text()[-3000:]}"
        self.service.append(process)
        return output.read_text()

    def stop(self) -> None:
        """Stop the service as its users do."""
        while self.service:
            process = self.service.pop()
            process.send_signal(signal.SIGTERM)
            assert process.wait(100) == 128 + signal.SIGTERM


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Stage]:
    """The stage, for as long as the block lasts."""
    root = furnished(folder)
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(s3.Server(folder / "journal"))
        hub = stack.enter_context(FakeHub())
        pods = stack.enter_context(kubernetes.Server(["Complete"], "step 1\n"))
        place = places.make(folder / "tiny")
        more = s3.credentials() | {"AWS_ENDPOINT_URL": bucket.endpoint, "RAY_metrics_report_interval_ms": "10000"}
        place = stack.enter_context(places.cluster(replace(place, environment=place.environment | more), "doc"))
        home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "KUBECONFIG": str(pods.config(folder / "kubeconfig"))}
        environment = place.environment | home | {"PATH": searched(folder), "PYTHONPATH": str(root), "COLUMNS": "140"}
        named = {
            "encoder": str(encoder(folder / "encoder")),
            "dashboard": environment.pop("RAY_API_SERVER_ADDRESS"),
            "shared": str(folder / "shared"),
            "port": str(free_port()),
            "hub": hub.endpoint,
            "token": TOKEN,
        }
        stage = Stage(root, environment, named, Warm(root, environment))
        stack.callback(stage.warm.close)
        stack.callback(stage.stop)
        yield stage


def furnished(folder: Path) -> Path:
    """A copy of the project with what its readers have: an environment, texts, and a finished run with a stock classifier."""
    root = folder / "project"
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, root / part)
    (root / ".venv").symlink_to(sys.prefix)
    tiny.write_csv(root / "data" / "test.csv", rows(15, "test"))
    (root / "data" / "more").mkdir()
    (root / "data" / "more" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in rows(12, "more")))
    tiny.write_csv(root / "inbox" / "today.csv", rows(6, "new"))
    (root / "other.yaml").write_text("seed: 1\n")
    (news := folder / "cache" / "threephase-ray" / f"reuters-r8-{TEXTS_SHA256[:8]}").mkdir(parents=True)
    for split in ("train", "test"):
        lines = [("text", "label"), *rows(600, split)]
        (news / f"{split}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in lines))
    test_export.classifier_of_a_run(made := folder / "run")
    shutil.copytree(made / "model", root / "store" / "runs" / "bert" / "model")
    return root


def rows(count: int, word: str) -> list[tuple[str, str]]:
    """Distinct texts, with labels that take turns."""
    return [(f"the {word} {LABELS[i % len(LABELS)]} {i}", LABELS[i % len(LABELS)]) for i in range(count)]


def encoder(folder: Path) -> Path:
    """A tiny checkpoint that pools by the mean, as the demo's does."""
    tiny_models.checkpoint(folder, "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    return folder


def searched(folder: Path) -> str:
    """Where commands are looked for: as everywhere, without the environment, but with its kubectl."""
    (folder / "bin").mkdir()
    here = Path(sys.executable).parent
    for name in ("kubectl", "kubectl-wrapper"):
        if (here / name).exists():
            (folder / "bin" / name).symlink_to(here / name)
    others = [path for path in os.environ["PATH"].split(os.pathsep) if Path(path).resolve() != here.resolve()]
    return os.pathsep.join([str(folder / "bin"), *others])
