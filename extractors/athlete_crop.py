"""``crop:NAME``: a network on frames, applied to the crop around the athlete, such as ``crop:torchvision:resnet50``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, create_model
from torch import nn

from ..manifests.errors import ConfigError
from ..manifests.streams import Geometry, Normalization, Record, Size, StreamSpec
from .checkpoints import Weights
from .geometry import output_size
from .network import NetworkCard
from .protocol import ExtractorKind
from .resnet_crop import CropSettings, ResNetCrop


def crop_kind(name: str) -> ExtractorKind:
    """Return the network NAME on crops around the athlete, which are the same as those of `resnet_crop`.

    Args:
        name: A network on frames, such as ``torchvision:convnext_tiny`` or ``resnet_frame``.

    Raises:
        ConfigError: The network is not known, or its input is not single frames.
    """
    from .table import extractor_kind

    found: Any = extractor_kind(name) if name else None
    if not isinstance(found, NetworkCard) or found.input != "image":
        raise ConfigError(
            f"extractor crop:{name or '?'}: NAME must be a network on single frames; write crop:NAME, "
            "e.g. crop:torchvision:convnext_tiny"
        )
    card = found
    size = output_size(480, 640, card.geometry)
    default = card.geometry.model_copy(update={"steps": (Size(size_px=size),)})
    fields: Any = {
        "crop_geometry": (Geometry, Field(default, description="From the crop to the input of the network.")),
        "normalization": (Normalization, Field(card.normalization, description="``(x / 255 - mean) / std``.")),
    }

    bases: Any = (CropSettings,) if card.options is Record else (card.options, CropSettings)
    settings: Any = create_model("Settings", __base__=bases, __module__=__name__, **fields)

    class CropOf(ResNetCrop):
        """The network on crops around the athlete."""

        Settings: ClassVar[Any] = settings
        version: ClassVar[int] = card.version
        complete = None if card.complete is None else staticmethod(card.complete)

        @staticmethod
        def check(spec: StreamSpec) -> None:
            geometry = Geometry.model_validate(spec.settings["crop_geometry"])
            if card.input_size is not None and output_size(480, 640, geometry) != card.input_size:
                height, width = card.input_size
                raise ConfigError(
                    f"extractor {spec.extractor}: the network takes pictures of {height} × {width} px; set "
                    f"settings.crop_geometry so that it ends with size_px = [{height}, {width}]"
                )

        def _load(self, settings: Any, weights: Weights) -> tuple[nn.Module, int]:
            network = card.load(settings, weights)
            self.sentence_rows: torch.Tensor | None = getattr(network, "sentence_rows", None)
            return network, card.dim_of(settings) if card.dim_of else card.dim

    kind: Any = CropOf
    return kind
