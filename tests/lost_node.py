"""Run on a local Ray cluster: the node with the worker is removed during the run, and another node joins.

``python lost_node.py VIDEOS OUT`` prints ``{"notices": [text, …], "settled": [video, …]}`` as its last line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import known_workers
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Notice, VideoSettled
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.workers.ray_workers import RayWorkers

NODE_OPTIONS = {"object_store_memory": 128 << 20}


def run(cluster: Any, videos: Path, out: Path) -> tuple[list[str], list[str]]:
    """Return the texts of the notices and the ids of the settled videos. The head node has no CPUs for workers."""
    worker_node: Any = cluster.add_node(num_cpus=1, **NODE_OPTIONS)
    notices, settled = list[str](), list[str]()
    workers = RayWorkers(cpus_per_worker=1, main=known_workers.process_slowly)
    options = RunOptions(num_decoders=1, num_cpu_threads=1)
    for event in Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, options=options, executor=workers):
        if isinstance(event, VideoSettled):
            settled.append(event.video_id)
            if worker_node is not None and event.video_id == "long":
                cluster.remove_node(worker_node, allow_graceful=False)
                worker_node = None
        if isinstance(event, Notice):
            notices.append(event.text)
            if "sent no heartbeat" in event.text:
                cluster.add_node(num_cpus=2, **NODE_OPTIONS)
    return notices, settled


def main(videos: str, out: str) -> None:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **NODE_OPTIONS})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    notices, settled = run(cluster, Path(videos), Path(out))
    print(json.dumps({"notices": notices, "settled": settled}), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
