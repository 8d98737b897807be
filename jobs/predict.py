"""Score any number of files with a finished classifier: all their columns come out again, with label and probability beside them.

python jobs/predict.py --name demo --model store/runs/demo/model --input.files texts.csv
"""

import sys

from threephase_ray.command import job
from threephase_ray.predicting import PredictConfig


def main(config: PredictConfig, dry_run: bool) -> None:
    """Score, or only show what would be."""
    from threephase_ray.predictions.job import predict  # here, so that --help and a wrong configuration need no torch

    predict(config, dry_run)


if __name__ == "__main__":
    sys.exit(job(main, "Score files with a finished classifier; a killed job goes on with the same command.", kind=PredictConfig))
