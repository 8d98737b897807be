"""The report of a study."""

from collections.abc import Iterator, Sequence
from itertools import product
from statistics import fmean

from threephase_ray.reports import charts, outcomes, page, reading, words
from threephase_ray.reports.charts import Axis, Picture, Reach, Series
from threephase_ray.reports.outcomes import Found, against, place
from threephase_ray.reports.page import Report
from threephase_ray.results import Store


def build(store: Store, name: str) -> Report:
    """The page of `studies/<name>`, a table of each metric, and one of all comparisons.

    Raises:
        ConfigError: there are no results of that name.
    """
    reading.check(store, "studies", name)
    folder = f"studies/{name}"
    found: Found = store.read_json(f"{folder}/results.json")
    runs = reading.table(store, f"{folder}/runs.parquet")
    text = reading.content(store, f"{folder}/study.yaml")
    tables = [outcomes.scores(found, metric) for metric in found["metrics"]] if len(found["cells"]) > 1 else [outcomes.at_once(found)]
    html = page.render(
        "study.html",
        kind="study",
        name=name,
        found=found,
        tables=tables,
        answers=list(answers(found)),
        forests={metric: list(forests(found, metric)) for metric in found["metrics"]},
        comparisons=comparisons(found),
        courses={metric: list(courses(found, metric)) for metric in found["metrics"]},
        per_class=[(place(cell), outcomes.per_class(found, cell)) for cell in found["cells"]],
        calibration=[reliability(found, cell) for cell in found["cells"]],
        errors=outcomes.calibration(found),
        costs=outcomes.costs(found),
        probes=outcomes.probes(found),
        runs=runs.to_pylist() if runs is not None else [],
        yaml=text.decode() if text is not None else None,
        store=store.storage.uri,
    )
    return Report(html, tables, outcomes.long(found))


def answers(found: Found) -> Iterator[Found]:
    """What came out for each arm, in a sentence for each metric."""
    for arm, verdicts in found["verdicts"].items():
        yield {"arm": arm, "lines": [(metric, counts, sentence(counts), _mean(found, arm, metric)) for metric, counts in verdicts.items()]}


def sentence(counts: dict[str, int]) -> str:
    """Wins, ties and losses in words."""
    total, win, loss = sum(counts.values()), counts["win"], counts["loss"]
    if not total:
        return "not compared"
    if total == 1:
        return "better" if win else "worse" if loss else "not told apart"
    if not win and not loss:
        return f"not told apart in any of {total} cells"
    parts = [f"better in {win}" if win else "", f"worse in {loss}" if loss else ""]
    return f"{' and '.join(part for part in parts if part)} of {total} cells" + (
        "" if win and loss else ", else not told apart" if counts["tie"] else ""
    )


def _mean(found: Found, arm: str, metric: str) -> float | None:
    """The mean difference from the reference over the cells."""
    every = [each["difference"] for cell in found["cells"] if (each := against(cell, arm, metric))]
    return fmean(every) if every else None


def forests(found: Found, metric: str) -> Iterator[Picture]:
    """Differences from the reference with their intervals: a picture for each arm, or one for all where there is one cell."""
    axis = Axis(f"difference of {words.title(metric)} from {found['reference']}, in points")
    every = [
        (look, arm, cell, each) for look, arm in enumerate(found["arms"]) for cell in found["cells"] if (each := against(cell, arm, metric))
    ]
    groups = [every] if len(found["cells"]) == 1 else [[one for one in every if one[1] == arm] for arm in found["arms"]]
    for group in filter(None, groups):
        title = group[0][1] if len(found["cells"]) > 1 else words.sentence(words.title(metric))
        rows = [
            Reach(place(cell) if len(found["cells"]) > 1 else arm, 100 * each["difference"], 100 * each["low"], 100 * each["high"], look)
            for look, arm, cell, each in group
        ]
        yield charts.intervals(rows, axis, title, zero=0.0, text=lambda value: words.points(value / 100))


def comparisons(found: Found) -> list[Found]:
    """All comparisons with the reference."""
    order = {arm: number for number, arm in enumerate(found["arms"])}
    every = [each | {"cell": place(cell)} for cell in found["cells"] for each in cell["comparisons"]]
    return sorted(every, key=lambda each: (found["metrics"].index(each["metric"]), order[each["arm"]]))


def courses(found: Found, metric: str) -> Iterator[Picture]:
    """The metric along each axis, a line for each arm, for each choice of the other axes' levels."""
    for axis, levels in found["axes"].items():
        others = {other: names for other, names in found["axes"].items() if other != axis}
        if len(levels) < 2:
            continue
        for chosen in product(*others.values()):
            fixed = dict(zip(others, chosen, strict=True))
            cells = {cell["levels"][axis]: cell for cell in found["cells"] if fixed.items() <= cell["levels"].items()}
            every = [_course(found["arms"], look, levels, cells, metric) for look in range(len(found["arms"]))]
            series = [each for each in every if each.points]
            where = ", ".join(f"{other} {level}" for other, level in fixed.items())
            if series:
                caption = words.sentence(f"{words.title(metric)} over {axis}" + (f" ({where})" if where else ""))
                yield charts.lines(series, Axis(axis, names=levels), Axis(words.title(metric), share=True, within=(0.0, 1.0)), caption)


def _course(arms: Sequence[str], look: int, levels: Sequence[str], cells: dict[str, Found], metric: str) -> Series:
    """An arm along an axis: a line where the levels are amounts, else points, those of the arms a little apart."""
    arm, amounts = arms[look], sum(any(sign.isdigit() for sign in level) for level in levels) >= len(levels) - 1
    apart = 0.0 if amounts else min(0.12, 0.7 / len(arms)) * (look - (len(arms) - 1) / 2)
    known = [(i + apart, cells[level]["arms"]) for i, level in enumerate(levels) if level in cells]
    there = [(x, figures[arm][metric]) for x, figures in known if arm in figures]
    band = [(x, each["low"], each["high"]) for x, each in there if each["low"] is not None]
    return Series(arm, [(x, each["mean"]) for x, each in there], look, dots=True, joined=amounts, band=band)


def reliability(found: Found, cell: Found) -> Picture:
    """The reliability diagram of all arms in a cell."""
    arms = {arm: cell["arms"][arm]["calibration"]["bins"] for arm in found["arms"] if arm in cell["arms"]}
    sides = [(arm, [(each["confidence"], each["accuracy"], each["rows"]) for each in bins]) for arm, bins in arms.items()]
    return charts.reliability(sides, place(cell))
