"""Image, dashboard and guide agree with the project: versions, metrics, sizes."""

import json
import re

import pytest

from tests.conftest import ROOT
from tests.unit.manifests import OVERLAYS, RAY, overlay
from threephase_ray import __version__
from threephase_ray.kube.objects import kinds, pods_of
from threephase_ray.memory import Size, lowest_stage, needed

CLUSTER = ROOT / "cluster"
METRICS = set(re.findall(r'"threephase_(\w+)"', (ROOT / "threephase_ray" / "training" / "meters.py").read_text(encoding="utf-8")))


def text(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def instructions() -> list[str]:
    """The Dockerfile's instructions, one a line."""
    lines = "\n".join(line for line in text("Dockerfile").splitlines() if line.strip() and not line.startswith("#"))
    return lines.replace("\\\n", " ").splitlines()


def test_the_image_is_of_the_pinned_ray() -> None:
    assert re.search(rf"^ARG RAY_VERSION={re.escape(RAY)}$", text("Dockerfile"), re.MULTILINE)
    assert {f"threephase-ray:{__version__}-ray{RAY}", f"threephase-ray-cpu:{__version__}-ray{RAY}"} == set(
        re.findall(r"-t (\S+)", text("Dockerfile"))
    )


def test_the_base_image_needs_a_digest() -> None:
    (base,) = [line for line in instructions() if line.startswith("FROM")]
    assert len(base.split()) == 2, "BuildKit splits the words of FROM before it fills in arguments"
    assert re.search(r"@\$\{RAY_DIGEST:\?\S+\}$", base)
    assert [line for line in instructions() if line.startswith("ARG RAY_DIGEST")] == ["ARG RAY_DIGEST"]


def test_what_is_installed_is_checked_by_hashes() -> None:
    installs = re.findall(r"pip install[^&]*", "\n".join(instructions()))
    assert len(installs) == 1
    assert "--require-hashes -r" in installs[0]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"uv pip compile pyproject\.toml .*--constraints constraints\.txt --generate-hashes", makefile)
    assert re.search(r"ARG PYTHON=py312", text("Dockerfile"))
    assert "--python-version 3.12" in makefile


def test_the_image_runs_as_the_pods_do() -> None:
    context = next(pods_of(next(iter(kinds(overlay("gpu"), "RayCluster"))))).spec["securityContext"]
    assert instructions()[-1] == f"USER {context['runAsUser']}:{context['runAsGroup']}"
    assert context["fsGroup"] == context["runAsGroup"]


def test_what_the_image_needs_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = {line.split()[-2] for line in instructions() if line.startswith("COPY")}
    assert sent == copied
    assert all((ROOT / path).exists() for path in sent - {"cluster/requirements.txt"})


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_pods_run_that_image(name: str) -> None:
    images = {pod.main["image"] for manifest in overlay(name) for pod in pods_of(manifest)}
    assert images == {f"threephase-ray{'-cpu' if name == 'cpu-dev' else ''}:{__version__}-ray{RAY}"}


def test_the_dashboard_shows_the_suites_metrics() -> None:
    board = json.loads(text("platform/dashboard.json"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert set(re.findall(r"ray_threephase_(\w+)", " ".join(expressions))) == METRICS
    assert len(METRICS) == 5
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "run", "phase"}
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"])
    (shipped,) = [m["data"]["dashboard.json"] for m in kinds(overlay("gpu"), "ConfigMap") if "dashboard.json" in m["data"]]
    assert json.loads(shipped) == board


def sizes() -> list[list[str]]:
    """Rows of the guide's table of sizes: model, parameters, layers, hidden, heads, vocabulary, tokens, length, workers, memory, ..."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text("README.md").splitlines() if line.startswith("|")]
    return [row for row in rows if len(row) == 12 and row[1].endswith(("M", "B"))]


def number(cell: str) -> int:
    return round(float(cell.split()[0].replace(",", "")) * (1e6 if "M" in cell else 1e9 if "B" in cell else 1))


def test_the_guides_sizes_are_the_projects_own_estimate() -> None:
    assert len(sizes()) >= 6
    for _, parameters, layers, hidden, heads, vocabulary, tokens, length, workers, available, stage, memory in sizes():
        size = Size(*map(number, (parameters, layers, hidden, heads, tokens, length, vocabulary)))
        chosen, _ = lowest_stage(size, number(workers), number(available.replace("GB", "B")))
        assert (stage, memory) == (str(chosen), f"{needed(chosen, size, number(workers)) / 1e9:.1f} GB")


def test_the_guide_names_what_there_is() -> None:
    guide = text("README.md")
    for path in re.findall(r"`((?:cluster|jobs|threephase_ray)/[\w./-]+)`", guide):
        assert (ROOT / path).exists() or path == "cluster/requirements.txt", path
    assert set(OVERLAYS) <= set(re.findall(r"`([\w-]+)`", guide))
