"""A phase of a run: what it cost, and how its figures went."""

from collections.abc import Sequence
from typing import Any

from threephase_ray.reports import charts, words
from threephase_ray.reports.charts import Axis, Picture, Series

TITLES = {
    "dae": "Phase 1: adapt the encoder to the texts",
    "contrastive": "Phase 2: draw each class together",
    "joint": "Phases 1 and 2 as one loss",
    "finetune": "Phase 3: the classifier",
}
BASELINE = "Plain fine-tuning, to compare with"
_SHOWN = ("accuracy", "macro_f1")  # of the figures of a classifier; precision and recall follow these


def card(name: str, row: dict[str, Any], full: dict[str, Any] | None) -> dict[str, Any]:
    """A phase for the page. `row`: as in the run's results; `full`: the phase's own file, with the losses."""
    known = row if full is None else row | {"losses": full.get("losses", [])}
    facts = [
        ("steps", f"{row['steps']:,}, best at {row['best_step']:,}"),
        ("weights", "reused from the store" if row["reused"] else "trained by this run"),
        ("worker time", f"{words.seconds(row['worker_seconds'])} on {words.count(row.get('workers', 1), 'worker')}"),
    ]
    optional = {
        "cpu_seconds": ("CPU time", words.seconds),
        "peak_memory": ("peak memory", words.size),
        "parameters": ("parameters", words.large),
    }
    facts += [(title, show(row[key])) for key, (title, show) in optional.items() if row.get(key) is not None]
    facts += [("validation", ", ".join(f"{words.title(key)} {words.figure(key, value)}" for key, value in _scores(row["scores"]).items()))]
    return {"name": name, "title": TITLES.get(name, name), "facts": facts, "pictures": pictures(name, known), "key": row["key"]}


def _scores(scores: dict[str, float]) -> dict[str, float]:
    """The figures that are worth a line or a chart; precision and recall of a classifier are not."""
    return {name: value for name, value in scores.items() if not name.startswith("macro_") or name in _SHOWN}


def pictures(name: str, known: dict[str, Any]) -> list[Picture]:
    """Loss of each step with that on validation, then every other figure on validation."""
    checks: list[dict[str, float]] = known["validations"]
    best = (float(known["best_step"]), "best") if known["best_step"] else None
    steps = Axis("step")
    made = []
    losses = [(float(step), loss) for step, loss in enumerate(known.get("losses", []), start=1) if loss is not None]
    if losses:
        series = [Series("each step", losses, faint=True), Series("training, smoothed", charts.smoothed(losses))]
        checked = [(check["step"], check["loss"]) for check in checks if "loss" in check]
        series += [Series("validation", checked, look=1, dots=True)] if checked else []
        made.append(charts.lines(series, steps, Axis("loss"), f"Loss of {name}", best))
    for figure in _scores(checks[0]) if len(checks) > 1 else ():
        if figure not in ("step", "loss"):
            made.append(_checked(name, figure, checks, best))
    return made


def _checked(name: str, figure: str, checks: Sequence[dict[str, float]], best: tuple[float, str] | None) -> Picture:
    """A figure on validation over the steps."""
    share = words.is_share(figure)
    axis = Axis(words.title(figure), share=share, within=(0.0, 1.0) if share else (-float("inf"), float("inf")))
    series = Series(f"{words.title(figure)} on validation", [(check["step"], check[figure]) for check in checks], look=1, dots=True)
    return charts.lines([series], Axis("step"), axis, words.sentence(f"{words.title(figure)} of {name} on validation"), best)
