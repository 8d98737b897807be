"""Serve a finished classifier over HTTP until SIGTERM or Ctrl-C.

python jobs/serve.py --name api --model store/runs/demo/model
"""

import sys

from threephase_ray.command import job
from threephase_ray.serving import ServeConfig


def main(config: ServeConfig, dry_run: bool) -> None:
    """Serve, or only show what would be."""
    from threephase_ray.service.job import serve  # here, so that --help and a wrong configuration need no torch

    serve(config, dry_run)


if __name__ == "__main__":
    sys.exit(job(main, "Serve a finished classifier over HTTP until SIGTERM or Ctrl-C.", kind=ServeConfig))
