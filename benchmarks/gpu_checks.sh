#!/usr/bin/env bash
# Checks and measurements for a machine with a GPU: each part is one run of at most ten minutes.
#
#   benchmarks/gpu_checks.sh wheels       here, with a network: downloads the small packages that such a machine lacks
#   benchmarks/gpu_checks.sh install      there: installs them beside torch, torchvision, transformers and numpy
#   benchmarks/gpu_checks.sh PART         there: correct, nvdec, streams, flow, graphs, networks, run, compiled or memory
#
# Results are written to $OUT (default: gpu-results). Nothing else is changed. Commit the folder gpu-wheels to no branch.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT="${OUT:-gpu-results}" WHEELS="${WHEELS:-gpu-wheels}" PYTHONPATH="$PWD:$PWD/tests" REQUIRE_GPU=1
export HF_HUB_OFFLINE=1
part="${1:-}"
log() { mkdir -p "$OUT"; tee "$OUT/$part.txt"; }
packages=(typer rich pydantic tomli-w spdl-core fsspec threadpoolctl platformdirs pyarrow av opencv-python-headless
  librosa soxr numba pytest scipy requests jinja2)

case "$part" in
wheels)
  python -m pip download --only-binary :all: --dest "$WHEELS" "${packages[@]}"
  rm -f "$WHEELS"/{torch,torchvision,numpy,triton}-*.whl "$WHEELS"/nvidia_*.whl
  ;;
install)
  python -m pip install --no-index --find-links "$WHEELS" "${packages[@]}"
  ;;
correct) # rows of a GPU against those of the CPU, color, geometry, transfer, flow
  nvidia-smi | log
  timeout 570 python -m pytest -q -p no:cacheprovider -m gpu tests/extractors tests/pipeline 2>&1 | log
  ;;
nvdec) # pictures of the video engine against the CPU's, and frames a second of 1 to 14 processes
  {
    nvidia-smi
    timeout 200 python -m pytest -q -p no:cacheprovider -m gpu tests/pipeline/decoding/test_nvdec.py
    timeout 370 python - <<'PYTHON'
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from arabesque.cli.demo_videos.moving_texture import write_moving_texture
from arabesque.pipeline.decoding.decoder_pool import DecoderPool, DecoderSettings


def decode(pool, path):
    with pool.decoder() as decoder:
        metadata = decoder.probe(path)
        metadata = replace(metadata, checked_frames=metadata.num_frames)
        for chunk in decoder.decode(path, metadata, np.arange(metadata.num_frames)):
            assert chunk.by_card is (backend == "nvdec"), chunk.on_cpu
            chunk.release()
        return metadata.num_frames


with TemporaryDirectory() as folder:
    path = Path(folder, "video.mp4")
    write_moving_texture(path, duration_s=40.0, width_px=1280, height_px=720)
    for backend in ("pyav", "nvdec"):
        for number in (1, 2, 4, 7, 14):
            with DecoderPool(number, backend, DecoderSettings(planar=True)) as pool, ThreadPoolExecutor(number) as threads:
                pool.wait_until_ready()
                began = time.perf_counter()
                num_frames = sum(threads.map(lambda _: decode(pool, path), range(2 * number)))
                print(backend, number, f"{num_frames / (time.perf_counter() - began):.0f} frames/s", flush=True)
PYTHON
  } 2>&1 | log
  ;;
streams) # inputs on a stream of their own: a run on the GPU equals one on the CPU, several times
  {
    python - <<'PYTHON'
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from arabesque.cli.demo_videos.moving_texture import write_moving_texture
from arabesque.extractors.precision import TOLERANCES
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.store.reader import FeatureStore

with TemporaryDirectory() as folder:
    videos = Path(folder, "videos")
    videos.mkdir()
    for number in range(4):
        write_moving_texture(videos / f"{number}.mp4", duration_s=8.0, seed=number)
    stores = []
    for name in ("cpu", "cuda:0", "cuda:0", "cuda:0"):
        out = Path(folder, f"store-{len(stores)}")
        options = RunOptions(device=torch.device(name), num_decoders=4)
        list(Extraction(videos, load_recipe("pamfn"), out, streams=["i3d_flow"], weights="random:0", options=options))
        stores.append(FeatureStore(out))
    for store in stores[1:]:
        for video in store.video_ids:
            one, other = (each[video]["i3d_flow"].values for each in (stores[0], store))
            off = float(np.abs(one - other).max() / np.abs(one).max())
            print(video, f"{off:.1e}", "ok" if off <= TOLERANCES["float32"] else "TOO FAR")
PYTHON
  } 2>&1 | log
  ;;
flow)
  timeout 570 python benchmarks/optical_flow.py --device cuda --methods tvl1 raft_large 2>&1 | log
  ;;
graphs) # TV-L1 with its rounds as CUDA graphs: the same flow, and pairs a second
  {
    python - <<'PYTHON'
import time

import torch
from arabesque.extractors.optical_flow.tvl1 import tvl1_of_clips
from arabesque.extractors.optical_flow.tvl1_settings import TVL1

torch.manual_seed(0)
scene = torch.nn.functional.interpolate(torch.rand(16, 1, 40, 60), (400, 500), mode="bicubic").clamp(0, 1) * 255
clips = [torch.stack([each[0, at : at + 256, at : at + 341] for at in range(33)]).byte().cuda() for each in scene]
expected = tvl1_of_clips(clips, TVL1())
for replays in (False, True, False, True):
    torch.cuda.synchronize()
    began = time.perf_counter()
    flows = tvl1_of_clips(clips, TVL1(), replays=replays)
    torch.cuda.synchronize()
    speed = 512 / (time.perf_counter() - began)
    print(f"replays={replays}: {speed:.0f} pairs/s, equal: {all(map(torch.equal, flows, expected))}", flush=True)
PYTHON
  } 2>&1 | log
  ;;
networks)
  timeout 570 python benchmarks/networks.py --device cuda --json "$OUT/networks.json" 2>&1 | log
  ;;
run) # what is measured, beside what was predicted
  for recipe in starter gdlt pamfn; do
    timeout 180 python -m arabesque bench --recipe "$recipe" --device cuda:0 --json "$OUT/bench-$recipe.json"
    timeout 100 python -m arabesque bench --recipe "$recipe" --predict h200 --json "$OUT/predicted-$recipe.json"
  done 2>&1 | log
  ;;
compiled) # the same features and fewer kernels
  for engine in torch compile; do
    timeout 280 python -m arabesque extract "${VIDEOS:-../shared/videos}" --recipe gdlt --weights random:0 --device cuda:0 \
      --engine "$engine" --out "$OUT/store-$engine"
  done 2>&1 | log
  python -m arabesque compare "$OUT/store-torch" "$OUT/store-compile" 2>&1 | tee -a "$OUT/compiled.txt" || true
  ;;
memory) # a tenth of the card for each of two workers: batches are halved, no video fails
  timeout 570 python -m arabesque extract "${VIDEOS:-../shared/videos}" --recipe gdlt --weights random:0 --device cuda:0 --workers 2 \
    --gpu-memory "${GPU_MEMORY:-8GiB}" --out "$OUT/store-memory" 2>&1 | log
  ;;
*)
  sed -n '2,8p' "$0"
  exit 2
  ;;
esac
