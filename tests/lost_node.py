"""A run on a Ray cluster of two nodes on this machine: the one that works is lost in the middle, another one joins.

python lost_node.py VIDEOS OUT prints ``{"notices": [text, …], "settled": [video, …]}`` as its last line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import known_work
from known_extractors import RECIPE, known_extractors

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.executors.ray_cluster import RayWorkers
from arabesque.pipeline.extraction import Extraction, RunOptions
from arabesque.pipeline.work import Notice, VideoSettled

ALIKE = {"object_store_memory": 128 << 20}


def carry_out(cluster: Any, videos: Path, out: Path) -> tuple[list[str], list[str]]:
    """What was noticed, and which videos were settled. The head has no room for workers."""
    working = cluster.add_node(num_cpus=1, **ALIKE)
    notices, settled = list[str](), list[str]()
    workers = RayWorkers(cpus_per_worker=1, work=known_work.works_slowly)
    options = RunOptions(num_decoders=1, num_cpu_threads=1)
    for event in Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, options=options, executor=workers):
        if isinstance(event, VideoSettled):
            settled.append(event.video_id)
            if working is not None and event.video_id == "long":
                cluster.remove_node(working, allow_graceful=False)
                working = None
        if isinstance(event, Notice):
            notices.append(event.text)
            if "gave no sign of life" in event.text:
                cluster.add_node(num_cpus=2, **ALIKE)
    return notices, settled


def main(videos: str, out: str) -> None:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ALIKE})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    with known_extractors():
        notices, settled = carry_out(cluster, Path(videos), Path(out))
    print(json.dumps({"notices": notices, "settled": settled}), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
