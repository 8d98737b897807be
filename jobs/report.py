"""Results as one HTML page, with tables for papers beside it: of a run, a sweep or a study. Trains nothing.

python jobs/report.py --store store --run demo
"""

import sys

from threephase_ray.reports import asking

if __name__ == "__main__":
    sys.exit(asking.main())
