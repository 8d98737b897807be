"""Check manifests without a cluster, in up to five layers; a line for each problem, exit code 2 when there is one.

python -m threephase_ray.kube.check cluster/overlays/* --crds FOLDER

1 they render, 2 schemas and rules of the CustomResourceDefinitions, 3 schemas of Kubernetes' own kinds, 4 rules of the operator and
of this project, 5 Pod Security. A kustomization counts together with the one in its folder `jobs`.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from threephase_ray import __version__
from threephase_ray.errors import ConfigError, JobError, ResourceError
from threephase_ray.kube import podsecurity, rules
from threephase_ray.kube.objects import Manifest, Problem
from threephase_ray.kube.render import gather


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = _parser().parse_args(argv)
    found = []
    for path in arguments.paths:
        try:
            problems, left_out = check(gather(path), arguments.crds, arguments.kubernetes, arguments.ray_version, arguments.version)
        except ConfigError as error:
            problems, left_out = [Problem("renders", str(path), str(error), "nothing else was checked")], []
        except ResourceError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.code
        print("\n".join([f"{path}: {problem}" for problem in problems] or [f"{path}: no problem"]))
        found += problems
    if arguments.paths and left_out:
        print("\n".join(f"not checked: {reason}" for reason in left_out), file=sys.stderr)
    return ConfigError.code if found else 0


def check(
    manifests: Sequence[Manifest],
    crds: Path | None = None,
    kubernetes: str | None = None,
    ray: str | None = None,
    version: str | None = None,
) -> tuple[list[Problem], list[str]]:
    """(problems of all layers that are possible, which layers were not and why).

    Args:
        manifests: rendered objects that belong together.
        crds: folder with the operator's CustomResourceDefinitions.
        kubernetes: version whose schemas are taken, the newest known if empty.
        ray: version of Ray that clusters should have, not looked at if empty.
        version: release that all objects should be labelled with, not looked at if empty.
    """
    problems, left_out = [], []
    if crds is None:
        left_out.append("schemas of custom resources, since --crds names no folder with CustomResourceDefinitions")
    elif reason := _missing("jsonschema", "cel"):
        left_out.append(f"schemas of custom resources, since {reason}")
    else:
        from threephase_ray.kube import schema  # here, since its packages are those of an extra

        problems += schema.check(manifests, schema.load(crds))
    if reason := _missing("kubernetes_validate"):
        left_out.append(f"schemas of Kubernetes' own kinds, since {reason}")
    else:
        from threephase_ray.kube import builtin

        problems += builtin.check(manifests, kubernetes)
    return problems + rules.check(manifests, ray, version) + podsecurity.check(manifests), left_out


def _missing(*modules: str) -> str:
    """Why a layer is impossible, empty if it is not."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f'{absent[0]} is not installed: pip install "threephase-ray[cluster]"' if absent else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m threephase_ray.kube.check", description="Check manifests without a cluster.")
    parser.add_argument("paths", nargs="+", type=Path, help="kustomizations, folders of YAML files, or YAML files")
    parser.add_argument("--crds", type=Path, help="folder with the CustomResourceDefinitions of KubeRay")
    parser.add_argument("--kubernetes", help="version of Kubernetes whose schemas are taken (default: the newest known)")
    parser.add_argument("--ray-version", default=importlib.metadata.version("ray"), help="of the clusters (default: the installed one)")
    parser.add_argument("--version", default=__version__, help="of this project, in the labels (default: the installed one)")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.code)
