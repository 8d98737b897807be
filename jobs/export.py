"""Take a run's exported models further: the classifier as an ONNX file, and both sent to a hub.

python jobs/export.py --name demo --model demo --onnx.int8 true
"""

import sys

from threephase_ray.command import job
from threephase_ray.exporting import ExportConfig


def main(config: ExportConfig, dry_run: bool) -> None:
    """Export, or only show what would be."""
    from threephase_ray.exports.job import export  # here, so that --help and a wrong configuration need no torch

    export(config, dry_run)


if __name__ == "__main__":
    sys.exit(job(main, "Write a run's classifier as ONNX, and send its models to a hub.", kind=ExportConfig))
