"""The command line of `submit.py`: what is sent, where to, and whether it is followed."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from threephase_ray.command import dump, ended, read, split
from threephase_ray.config import Config, Job
from threephase_ray.console import console
from threephase_ray.errors import ConfigError
from threephase_ray.knobs import help_text
from threephase_ray.predicting import PredictConfig
from threephase_ray.studying import StudyConfig
from threephase_ray.submitting import kubectl, rayjob, upload, vetting
from threephase_ray.sweeping import SweepConfig

JOBS: dict[str, type[Job]] = {"prepare": Config, "train": Config, "sweep": SweepConfig, "study": StudyConfig, "predict": PredictConfig}
TEMPLATE = "cluster/base/rayjob.yaml"  # below the project's folder


@dataclass(frozen=True)
class Wish:
    """What `submit.py` was asked for, apart from the knobs."""

    job: str
    to: str
    address: str | None
    namespace: str | None
    image: str | None
    template: Path
    follow: bool
    dry_run: bool


class _Parser(argparse.ArgumentParser):
    """Leaves errors to the caller."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n  --help lists all flags")


def parser() -> argparse.ArgumentParser:
    """The flags that are no knobs."""
    made = _Parser(
        add_help=False, allow_abbrev=False, usage="%(prog)s --config FILE [--job JOB] [--to ray|kube] ... [--dotted.knob VALUE ...]"
    )
    made.add_argument("--job", choices=list(JOBS), default="train", help="which job (default: train)")
    made.add_argument("--to", choices=["ray", "kube"], help="a running Ray cluster (default, if its address is known), or KubeRay")
    made.add_argument("--address", help="of a running Ray cluster: http://head:8265 or head:6379 (default: RAY_ADDRESS)")
    made.add_argument("--namespace", help="of Kubernetes (default: that of kubectl's context)")
    made.add_argument("--image", help="for all pods (default: the template's)")
    made.add_argument("--template", help=f"the RayJob to fill in (default: {TEMPLATE})")
    made.add_argument("--no-follow", action="store_true", help="send, and do not wait for the end")
    return made


def main(root: Path, argv: Sequence[str] | None = None) -> int:
    """Submit the project in `root`; the exit code is the job's own, or that of the error that kept it from being sent."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(parser().format_help(), help_text("Send a job to a cluster, after its configuration was checked here.", Config), sep="\n")
        return 0
    return ended(lambda: submit(root, arguments))


def submit(root: Path, arguments: Sequence[str]) -> int:
    """Check, send and follow; the job's exit code.

    Raises:
        ConfigError: the configuration is wrong, or would mean something else on the cluster.
        ResourceError: the cluster cannot be reached, or does not take the job.
    """
    wish, files, flags = understood(root, arguments)
    config = read(files, flags, JOBS[wish.job])
    code = upload.files(root) if wish.to == "ray" else {}
    vetting.check(config, root, set(code))
    if wish.to == "kube":
        return to_kube(wish, config)
    upload.refuse_if_large(code)
    return to_ray(wish, config, code)


def understood(root: Path, arguments: Sequence[str]) -> tuple[Wish, list[str], list[str]]:
    """The wish, the configuration's files, and the knobs' flags; a ConfigError where none says where to send the job."""
    known, rest = parser().parse_known_args(list(arguments))
    files, flags, dry_run = split(rest)
    is_known = bool(known.address or {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"} & set(os.environ))
    to = "ray" if known.to is None and is_known else known.to
    if to is None or (to == "ray" and not is_known and not dry_run):
        raise ConfigError("where to? give --address of a running Ray cluster (or RAY_ADDRESS), or --to kube for KubeRay")
    template = Path(known.template) if known.template else root / TEMPLATE
    wish = Wish(known.job, to, known.address, known.namespace, known.image, template, not known.no_follow, dry_run)
    return wish, files, flags


def to_ray(wish: Wish, config: Job, code: dict[str, Path]) -> int:
    """Send the code and the configuration to a running cluster."""
    if wish.dry_run:
        console.print(f"would be uploaded: {upload.described(code)}", highlight=False, soft_wrap=True)
        console.print("the resolved configuration:", dump(config), sep="\n", highlight=False, soft_wrap=True)
        return 0
    from threephase_ray.submitting.ray_jobs import Jobs  # here, so that a wrong configuration needs no Ray

    jobs = Jobs(wish.address)
    number = jobs.running(wish.job, config)
    if number is None:
        number = jobs.send(wish.job, config, code)
    return jobs.follow(number) if wish.follow else jobs.left(number)


def to_kube(wish: Wish, config: Job) -> int:
    """Send a RayJob to Kubernetes."""
    documents = rayjob.filled(rayjob.load(wish.template), wish.job, config, wish.namespace, wish.image)
    rayjob.check(documents[-1])
    if wish.dry_run:
        print(rayjob.text(documents), end="")
        return 0
    jobs = kubectl.RayJobs(wish.namespace)
    if not jobs.is_running(config.name):
        jobs.send(config.name, rayjob.text(documents))
    return jobs.follow(config.name) if wish.follow else jobs.left(config.name)
