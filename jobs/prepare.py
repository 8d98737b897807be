"""Read, check, split and tokenise the texts once, and say what they are like; `train.py` does the same on its way.

python jobs/prepare.py --config jobs/configs/demo.yaml
"""

import sys

from threephase_ray.command import job
from threephase_ray.config import Config


def main(config: Config, dry_run: bool) -> None:
    """Make the data set unless the store has it, or only say what would be read."""
    from threephase_ray import planning  # here, so that --help and a wrong configuration need no torch

    if dry_run:
        planning.preview(config)
    else:
        planning.prepare(config)


if __name__ == "__main__":
    sys.exit(job(main, "Turn raw texts into a checked, split and tokenised data set in the store."))
