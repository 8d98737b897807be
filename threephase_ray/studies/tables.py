"""A study's results as tables in the terminal."""

from typing import Any

from threephase_ray import console

_TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1"}


def show(found: dict[str, Any]) -> None:
    """Each arm's scores in each cell with their intervals, and its difference from the reference with its verdict; then the costs."""
    for metric in found["metrics"]:
        rows = [[arm, *(_score(cell, arm, metric) for cell in found["cells"])] for arm in found["arms"]]
        title = f"{_TITLES[metric]} in %, mean over seeds [95 % interval]"
        console.table(title, ["arm", *(_name(cell) for cell in found["cells"])], rows)
        others = [arm for arm in found["arms"] if arm != found["reference"]]
        rows = [[arm, *(_difference(cell, arm, metric) for cell in found["cells"])] for arm in others]
        title = f"{_TITLES[metric]}: points more than {found['reference']} [95 % interval], p corrected for the number of comparisons"
        if others:
            console.table(title, ["arm", *(_name(cell) for cell in found["cells"])], rows)
    rows = [[arm, *(_cost(cell, arm) for cell in found["cells"])] for arm in found["arms"]]
    console.table("CPU seconds of a run (and of its tuning)", ["arm", *(_name(cell) for cell in found["cells"])], rows)
    console.console.print(saved(found["sharing"]), highlight=False)
    for failure in found["failed"]:
        where = ", ".join([failure["arm"], *failure["levels"].values(), f"seed {failure['seed']}"])
        console.console.print(f"failed: {where}: {failure['reason'].splitlines()[0]}", highlight=False, soft_wrap=True)


def saved(sharing: dict[str, Any]) -> str:
    """What sharing phases saved, in a line."""
    spent, alone = sharing["worker_seconds"], sharing["worker_seconds_alone"]
    ratio = f" ({alone / spent:.1f} times cheaper)" if spent else ""
    trained, reused = sharing["phases_trained"], sharing["phases_reused"]
    return f"{trained} phases trained, {reused} reused: {spent:,.0f} worker seconds instead of {alone:,.0f}{ratio}"


def _name(cell: dict[str, Any]) -> str:
    """A cell's levels."""
    return "\n".join(cell["levels"].values()) if cell["levels"] else "all"


def _score(cell: dict[str, Any], arm: str, metric: str) -> str:
    """Mean and interval of an arm's metric."""
    if arm not in cell["arms"]:
        return "-"
    found = cell["arms"][arm][metric]
    return f"{found['mean']:.1%} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]".replace("%", "")


def _difference(cell: dict[str, Any], arm: str, metric: str) -> str:
    """Difference, interval, corrected p and verdict."""
    for each in cell["comparisons"]:
        if (each["arm"], each["metric"]) == (arm, metric):
            low, high = 100 * each["low"], 100 * each["high"]
            return f"{100 * each['difference']:+.1f} [{low:+.1f}, {high:+.1f}] p {each['p_corrected']:.3f} {each['verdict']}"
    return "-"


def _cost(cell: dict[str, Any], arm: str) -> str:
    """What a run cost, as if it had shared nothing, and what choosing its knobs did."""
    if arm not in cell["arms"]:
        return "-"
    found = cell["arms"][arm]
    tuning = f" (+ {found['tuning']['cpu_seconds']:,.0f})" if found["tuning"] else ""
    return f"{found['cost']['cpu_seconds']:,.0f}{tuning}"
