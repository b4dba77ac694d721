"""Options for the execution of a run: device, decoders, threads, limits and retries."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..extractors.engines import Engine
from .decoding.decoder_pool import DecoderSettings
from .failure_budget import FailureBudget
from .stages.fetch import PREFETCH_BYTES
from .system.process_resources import available_cores

MAX_DECODERS_ON_CPU = 8
"""With more decoder processes, runs with networks on the CPU are not faster (docs/measurements.md)."""


def default_decoders(threads: int, device_type: str) -> int:
    """Return how many videos a process decodes at once. With its networks on a GPU, all cores decode.

    Args:
        threads: CPU threads of the process.
        device_type: Type of the device of its networks.

    Example:
        >>> default_decoders(16, "cuda"), default_decoders(16, "cpu"), default_decoders(4, "cpu")
        (16, 8, 2)
    """
    return threads if device_type != "cpu" else max(1, min(MAX_DECODERS_ON_CPU, threads // 2))


@dataclass(frozen=True)
class Concurrency:
    """Number of threads of each stage that may use several."""

    decode: int
    preprocess: int
    prepare: int
    network: int
    """Batches that networks process at the same time, each with an equal share of the CPU threads."""


@dataclass(frozen=True)
class RunOptions:
    """Options for the execution of a run. They do not change a feature beyond the tolerance of its precision.

    Example:
        >>> import torch
        >>> RunOptions(device=torch.device("cpu"), num_decoders=2, num_cpu_threads=4).concurrency
        Concurrency(decode=2, preprocess=1, prepare=4, network=1)
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    engine: Engine = "torch"
    """Software that runs networks: ``torch``, ``compile``, or on a CPU ``openvino``."""
    decoder: str = "pyav"
    """``pyav``, ``decord`` or ``nvdec``."""
    num_decoders: int = 1
    """Number of videos that are decoded at the same time, each in a process."""
    num_cpu_threads: int = field(default_factory=available_cores)
    num_batches: int | None = None
    """Maximal number of batches that networks process at the same time. None: two on an accelerator, where one is
    computed while the other is queued, and one on a CPU, where two are not faster (docs/measurements.md). The engines
    ``openvino`` and ``compile`` process one."""
    retry_failed: bool = False
    """Whether failed and partial videos are extracted again. Transient failures are retried in any case."""
    replaces_sources: bool = False
    """Whether a video's rows may be replaced by rows of another source file with the same id (`planning.sources`)."""
    float16: bool = False
    """Whether features are stored as float16 instead of float32."""
    memory_bytes: int | None = None
    """Memory limit of a worker and its decoders; None: no limit."""
    gpu_memory_bytes: int | None = None
    """Memory limit of a worker on its GPU; None: no limit. A batch that does not fit is halved."""
    decoding: DecoderSettings | None = None
    """Settings of the decoder processes; None: the defaults for ``device``."""
    prefetch_bytes: int = PREFETCH_BYTES
    """Disk space for each worker's local copies of remote videos."""
    remembers_files: bool = True
    """Whether digests and metadata of unchanged files may come from the metadata cache."""
    max_failures: FailureBudget | None = None
    """The run stops when more videos fail; None: no limit."""

    @property
    def concurrency(self) -> Concurrency:
        """Number of threads of each stage."""
        on_cpu = self.device.type == "cpu"
        networks = self.num_batches or (1 if on_cpu else 2)
        if self.engine != "torch" or (on_cpu and networks > self.num_cpu_threads):
            networks = 1
        return Concurrency(self.num_decoders, preprocess=1, prepare=self.num_cpu_threads, network=networks)

    @property
    def decoder_settings(self) -> DecoderSettings:
        """Settings of the decoder processes. An accelerator converts color itself; on a CPU swscale is faster
        (``benchmarks/decoding.py``)."""
        return self.decoding or DecoderSettings(planar=self.device.type != "cpu", card=self.device.index or 0)
