"""Read, check, split and tokenise the texts once, and say what they are like; `train.py` does the same on its way.

python jobs/prepare.py --config jobs/configs/demo.yaml
"""

import sys
from pathlib import Path
from typing import Any

from threephase_ray import console, data, pretrained
from threephase_ray.command import job
from threephase_ray.config import Config


def main(config: Config, dry_run: bool) -> None:
    """Make the data set unless the store has it; print its splits and what the checks found."""
    tokenizer, limit = pretrained.load_tokenizer(config.encoder)
    plan = data.plan(config.data, tokenizer, limit, Path(config.store), config.seed)
    if dry_run:
        rows = [[split, "\n".join(origin.name for origin in origins)] for split, origins in plan.found.items()]
        console.table("would read", ["split", "from"], rows + [[split, f"{share:.0%} of train"] for split, share in plan.missing.items()])
    else:
        with console.counting() as progress:
            data.prepare(config.data, tokenizer, limit, Path(config.store), config.seed, progress)
    if plan.done:
        facts = data.describe(plan.folder)
        columns = ["split", "rows", "classes", "class sizes", "tokens: mean, p95, max", "truncated"]
        console.table("splits", columns, [[split, *_figures(found, facts["truncated"][split])] for split, found in facts["splits"].items()])
        found = {kind: found for kind, found in facts["checks"].items() if found["count"]}
        rows = [[kind, check["policy"], f"{check['count']:,} {check['unit']}"] for kind, check in found.items()]
        console.table("checks", ["check", "policy", "found"], rows)
    console.console.print(f"data set: {plan.folder}{'' if plan.done else ' (not made yet)'}")


def _figures(found: dict[str, Any], truncated: float) -> list[str]:
    """One row of the table of splits."""
    sizes, lengths = [count for count in found["class_counts"] if count], found["lengths"]
    spread = f"{min(sizes):,} to {max(sizes):,}" if sizes else ""
    tokens = f"{lengths['mean']:.0f}, {lengths['p95']}, {lengths['max']}"
    return [f"{found['rows']:,}", str(len(sizes)), spread, tokens, f"{truncated:.1%}"]


if __name__ == "__main__":
    sys.exit(job(main, "Turn raw texts into a checked, split and tokenised data set in the store."))
