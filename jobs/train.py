"""Train the listed phases, then score the test split once.

python jobs/train.py --config jobs/configs/demo.yaml
"""

import sys

from threephase_ray.command import job
from threephase_ray.config import Config


def main(config: Config, dry_run: bool) -> None:
    """Train, or only show the plan."""
    from threephase_ray.pipeline import train  # here, so that --help and a wrong configuration need no torch

    train(config, dry_run)


if __name__ == "__main__":
    sys.exit(job(main, "Turn labelled text into a classifier: denoising autoencoder, contrastive learning, fine-tuning."))
