"""Send a job to a running Ray cluster or to KubeRay: checked here first, followed to its end, with its own exit code.

python jobs/submit.py --config jobs/configs/demo.yaml --store /shared/store --address http://head:8265
python jobs/submit.py --config jobs/configs/demo.yaml --store s3://bucket/store --to kube --dry-run
"""

import sys
from pathlib import Path

from threephase_ray.submitting.asking import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
