"""From templates to one HTML page that needs nothing else."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from threephase_ray import __version__
from threephase_ray.reports import charts, svg, words
from threephase_ray.reports.tables import Table


class Report(NamedTuple):
    """A page, and its tables that are worth files: for people, and the same figures for programs."""

    html: str
    tables: Sequence[Table]
    flat: Table


def _environment() -> Environment:
    """The templates; whatever they print is escaped, for texts and labels are others'."""
    made = Environment(
        loader=PackageLoader("threephase_ray.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for function in (words.percent, words.points, words.decimals, words.whole, words.large, words.seconds, words.size, words.chance):
        made.filters[function.__name__] = function
    made.filters |= {"title_of": words.title, "count_of": words.count, "breakable": breakable, "sentence": words.sentence}
    assert made.loader is not None
    made.globals |= {"sign": lambda look: svg.mark(look, 0, 0, 5, charts.look(look))}
    made.globals |= {"css": Markup(made.loader.get_source(made, "style.css")[0]), "program": f"threephase-ray {__version__}"}  # noqa: S704 - our own file
    return made


def breakable(name: str) -> Markup:
    """A name that may be broken after its dots and underscores."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])", name))


def render(template: str, **facts: Any) -> str:
    """The page that a template makes of the facts."""
    return _environment().get_template(template).render(**facts)
