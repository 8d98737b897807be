"""Train the listed phases, then score the test split once.

    python jobs/train.py --config jobs/configs/demo.yaml
"""

import sys

from threephase_ray.command import job
from threephase_ray.pipeline import train

if __name__ == "__main__":
    sys.exit(job(train, "Turn labelled text into a classifier: denoising autoencoder, contrastive learning, fine-tuning."))
