"""Model cards: the README.md of an exported model, filled from a run's results, with the front matter that model hubs read."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from threephase_ray.reports import tables, words

SMALL = 10  # training rows below which a class is said to be small
TASKS = {"classifier": "text-classification", "encoder": "feature-extraction"}  # as hubs call them


def card(kind: str, library: str, results: dict[str, Any], facts: dict[str, Any], config: dict[str, Any], base_card: str) -> str:
    """The card of the run's "classifier" or "encoder", which `library` loads.

    `facts`: of the data set, as `dataset.json` has them; `config`: the run's, resolved; `base_card`: the base model's own, if it has one.
    """
    base, stated = public(config["encoder"]["path"]), licence(base_card)
    split = config["predict"] if kind == "classifier" else None
    found = {
        "kind": kind,
        "library": library,
        "results": results,
        "facts": facts,
        "base": base,
        "licence": stated,
        "sources": sources(config["data"]),
        "classes": classes(facts, results[split]["per_class"] if split else {}),
        "split": split,
        "tested": tested(results, split) if split else {},
        "small": SMALL,
    }
    front = yaml.safe_dump(front_matter(config, found), sort_keys=False, allow_unicode=True)
    return _environment().get_template("card.md").render(front=Markup(front), **found)  # noqa: S704 - safe_dump quotes what needs it


def front_matter(config: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What hubs read; `found`: as the template gets it."""
    results, task = found["results"], TASKS[found["kind"]]
    made: dict[str, Any] = {"library_name": found["library"], "pipeline_tag": task, "tags": ["threephase-ray", task]}
    if found["licence"]:
        made["license"] = found["licence"]
    if _is_known(path := config["encoder"]["path"]) and not path.startswith("demo:"):
        made["base_model"] = path
    if found["split"]:
        data, scores = ", ".join(found["sources"]), results[found["split"]]
        metrics = [{"type": "accuracy", "value": scores["accuracy"]}, {"type": "f1", "name": "macro F1", "value": scores["macro_f1"]}]
        dataset = {"name": data, "type": data, "split": found["split"]}
        made["model-index"] = [{"name": results["name"], "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}]
    return made


def tested(results: dict[str, Any], split: str) -> dict[str, dict[str, Any]]:
    """The figures of the classifiers on the split, by their titles."""
    sides = {"this classifier": split, "plain fine-tuning of the base model": f"baseline_{split}"}
    return {title: results[name] for title, name in sides.items() if name in results}


def classes(facts: dict[str, Any], figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Each class with its training rows and, where there are any, its figures; the largest first."""
    sizes, names = facts["splits"]["train"]["class_counts"], facts["label_names"][-1]
    shown = {figure: figures[figure] for figure in ("precision", "recall", "f1", "support") if figure in figures}
    rows = [{"name": name, "train": sizes[k], **{figure: each[k] for figure, each in shown.items()}} for k, name in enumerate(names)]
    return sorted(rows, key=lambda row: -row["train"])


def sources(data: dict[str, Any]) -> list[str]:
    """Where the texts came from."""
    given = [data[name] for name in ("source", "train", "validation", "test", "unlabelled") if data[name] is not None]
    return list(dict.fromkeys(map(public, given)))


def public(name: str) -> str:
    """A hub id or a demo as it stands; of a path or URI the last part, since the rest tells of machines."""
    return name if _is_known(name) else PurePosixPath(name).name


def _is_known(name: str) -> bool:
    """Whether a name has the form of a hub id or a demo, and is no local path."""
    return re.fullmatch(r"(demo:)?[\w.-]+(/[\w.-]+)?", name) is not None and not Path(name).exists()


def licence(base_card: str) -> str | None:
    """The licence that a model card's front matter states."""
    front = re.match(r"---\s*\n(.*?)\n---", base_card, re.DOTALL)
    try:
        stated = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return None
    found = stated.get("license") if isinstance(stated, dict) else None
    return found if isinstance(found, str) else None


def _environment() -> Environment:
    """The template; whatever it prints stands for itself, for texts and labels are others'."""
    made = Environment(
        loader=PackageLoader("threephase_ray.reports"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(tables.literal(str(value))),  # noqa: S704 - no mark is left
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (words.percent, words.decimals, words.whole, words.seconds, words.count):
        made.filters[function.__name__] = function
    return made
