"""Compare variants of the method, with several seeds, intervals and tests; phases that runs have in common are trained once.

python jobs/study.py --config jobs/configs/studies/demo.yaml
"""

import sys

from threephase_ray.command import job
from threephase_ray.studying import StudyConfig


def main(config: StudyConfig, dry_run: bool) -> None:
    """Run the study, or only show what it consists of."""
    from threephase_ray.studies.study import study  # here, so that --help and a wrong configuration need no torch

    study(config, dry_run)


if __name__ == "__main__":
    sys.exit(
        job(main, "Compare arms over axes and seeds: which variant of the method is better, by how much, at what cost.", kind=StudyConfig)
    )
