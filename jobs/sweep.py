"""Search the knobs on the validation split; phases that trials have in common are trained once.

python jobs/sweep.py --config jobs/configs/sweeps/demo.yaml
"""

import sys

from threephase_ray.command import job
from threephase_ray.sweeping import SweepConfig


def main(config: SweepConfig, dry_run: bool) -> None:
    """Search, or only show the space."""
    from threephase_ray.sweeps.sweep import sweep  # here, so that --help and a wrong configuration need no torch

    sweep(config, dry_run)


if __name__ == "__main__":
    sys.exit(job(main, "Search noise ratio, temperature, log-oversampling factor or any other knob.", kind=SweepConfig))
