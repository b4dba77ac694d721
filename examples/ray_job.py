"""Extract a folder of videos on a Ray cluster: ``ray job submit -- python ray_job.py VIDEOS/ features/``.

In a job, Ray is the cluster of the job. Without RAY_ADDRESS, a private Ray is started here. Needs the extra `ray`.
"""

import os
import sys
from collections import Counter

import arabesque
from arabesque.pipeline.workers.ray_workers import RayWorkers

videos, out = sys.argv[1:]
ray = RayWorkers(address=os.environ.get("RAY_ADDRESS"), workers=2, cpus_per_worker=1)
store = arabesque.extract(videos, recipe="starter", out=out, streams=["motion"], executor=ray)
print(dict(Counter(outcome.kind for outcome in store.outcomes())))
