"""Run a frozen network on its device, on items of any shapes; each item gives one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..manifests.streams import Precision
from .device_copies import upload
from .engines import current_engine, on_engine
from .onednn_layers import to_device
from .precision import DTYPES, convert_weights, inference


def ready(network: nn.Module, device: torch.device, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Return a network with converted weights, for the engine of the enclosing `building_for`.

    Args:
        network: Maps ``[n, ...]`` to ``[n, ...]``. Its weights are on ``device``.
        device: Device of the network.
        precision: Number format of its matrix products and convolutions. Calls must be within `inference` with the
            same precision.
    """
    if current_engine() != "openvino":  # OpenVINO converts float32 weights itself
        convert_weights(network, precision)
    return on_engine(network, device, precision)


class NetworkRunner:
    """Runs a network in one precision, on batches of items of equal shape and type.

    Args:
        network: Maps ``[n, ...]`` to ``[n, dim]``.
        device: Device of the network.
        precision: Number format of its matrix products and convolutions.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.device = device
        self._precision: Precision = precision
        self._network = ready(to_device(network, device), device, precision)
        self.is_concurrent = current_engine() == "torch"
        """Whether `rows` may be called from several threads at once; the other engines keep state between calls."""

    def rows(
        self, items: Sequence[Tensor], to_input: Callable[[Tensor], Tensor], most: int | None = None
    ) -> list[Tensor]:
        """Return one ``float32 [dim]`` row for each item, in order.

        Args:
            items: Tensors of any shapes and types.
            to_input: Converts a stack ``[n, ...]`` of equally shaped items on the device to network input, float32.
            most: Maximum number of items per call of the network; None for all.
        """
        positions: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
        for position, item in enumerate(items):
            positions.setdefault((item.shape, item.dtype), []).append(position)
        rows: dict[int, Tensor] = {}
        with inference(self.device, self._precision):
            for alike in positions.values():
                step = most or len(alike)
                for first in range(0, len(alike), step):
                    together = alike[first : first + step]
                    batch = upload(torch.stack([items[position] for position in together]), self.device)
                    features = self._network(to_input(batch).to(DTYPES[self._precision]))
                    rows.update(zip(together, features.float(), strict=True))
        return [rows[position] for position in range(len(items))]
