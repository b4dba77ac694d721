"""Outputs of a network before its pooling: of the layer of its features, or of an inner layer given in a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ..manifests.errors import ConfigError
from ..manifests.streams import Record, StreamSpec
from .checkpoints import RandomWeights, Weights
from .without_memory import without_memory

Output = Literal["pooled", "time", "map"]
Shape = tuple[int, ...]
NUM_TRIED = 2
"""Batch size for tracing a network. Layers that merge the batch with another axis are recognized and left out."""


class OutputSettings(Record):
    """Settings of the output of a network that a stream stores."""

    output: Output = "pooled"
    """Stored values of a segment. ``pooled``: one row, the mean over time, height and width. ``time``: the mean over
    height and width, [time, dim]. ``map``: all positions, [time, height, width, dim]; for a network on single frames
    [height, width, dim], the mean over the frames of the segment. Taken from ``layer``, by default that of the
    features."""
    layer: str = ""
    """Path of an inner layer in the network, such as layer3 or trunk.mixed_4f, or the end of its path; by default the
    layer of the features. `arabesque recipes RECIPE --layers STREAM` lists all paths."""
    row_shape: tuple[PositiveInt, ...] = ()
    """Shape of the stored values of a segment; filled in if ``output`` or ``layer`` is set."""


class Layer(NamedTuple):
    """A layer of a network and the shape of its output for one input."""

    name: str
    shape: Shape
    kind: Literal["map", "tokens", "row"]
    """``map``: [time, height, width, dim] or [height, width, dim]; ``tokens``: [tokens, dim]; ``row``: [dim]."""


class Network(NamedTuple):
    """A network whose layers are listed.

    Attributes:
        load: Returns the network for settings and weights.
        settings: Its settings.
        input_shape: Shape of one input: [channels, height, width] or [channels, time, height, width].
        dim: Length of the network's rows.
        features: Layer of its features; None for the last layer with a map of `dim` channels.
        pooled_steps: Size of the moving average over time that the network applies to the layer of its features.
    """

    load: Callable[[Any, Weights], nn.Module]
    settings: Record
    input_shape: Shape
    dim: int
    features: str | None = None
    pooled_steps: int = 1


def is_inner(settings: Any) -> bool:
    """Return whether a stream stores anything other than the rows of its network."""
    return bool(getattr(settings, "layer", "")) or getattr(settings, "output", "") in ("time", "map")


def with_row_shape(spec: StreamSpec, networks: Sequence[Network]) -> StreamSpec:
    """Return a resolved stream with the path of its layer and the shape of its rows.

    Args:
        spec: The stream, with all settings.
        networks: The network with the input size of a landscape video and with that of a portrait video.

    Raises:
        ConfigError: The network has no such layer or no such output, or the shape depends on the video.
    """
    settings: Any = networks[0].settings
    if settings.output not in get_args(Output):
        raise ConfigError(
            f"extractor {spec.extractor}: output = {settings.output!r} cannot have a layer; remove layer, or set "
            "output = 'pooled'"
        )
    found = [_chosen(spec, network) for network in networks]
    shapes = {_row_shape(layer, settings.output, network) for layer, network in zip(found, networks, strict=True)}
    if len(shapes) > 1:
        raise ConfigError(
            f"extractor {spec.extractor}: output = {settings.output!r} needs pictures of one size, but the geometry "
            "produces different sizes for portrait and landscape videos; set settings.geometry so that it ends "
            "with center_crop_px or size_px"
        )
    filled = {"layer": found[0].name, "row_shape": list(shapes.pop())}
    return spec.model_copy(update={"settings": spec.settings | filled})


def layers_of(network: Network) -> list[Layer]:
    """Return the layers of a network in the order in which they finish, without computing their values."""
    settings: Any = network.settings.model_copy(update={"layer": "", "row_shape": ()})
    return list(_traced(network.load, settings, network.input_shape))


@lru_cache(maxsize=16)
def _traced(load: Callable[[Any, Weights], nn.Module], settings: Record, input_shape: Shape) -> tuple[Layer, ...]:
    network = without_memory(lambda: load(settings, RandomWeights(0))).to("meta")
    shapes = dict[str, torch.Size]()

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_: nn.Module, given: Any, result: Any) -> None:
            shapes.pop(name, None)  # the last call counts
            if (values := _tensor_of(result)) is not None:
                shapes[name] = values.shape

        return record

    for name, module in cast("Iterator[tuple[str, nn.Module]]", network.named_modules()):
        if name:
            module.register_forward_hook(recorder(name))
    with torch.inference_mode():
        network(torch.empty((NUM_TRIED, *input_shape), device="meta"))
    return tuple(
        layer
        for name, (count, *shape) in shapes.items()
        if count == NUM_TRIED and (layer := _layer(name, tuple(shape), input_shape)) is not None
    )


def _layer(name: str, shape: Shape, input_shape: Shape) -> Layer | None:
    """Return a layer with its channels at the end; None if the meaning of its axes is not known."""
    if len(shape) == len(input_shape):
        return Layer(name, shape if _is_channels_last(shape, input_shape) else (*shape[1:], shape[0]), "map")
    if len(shape) <= 2:
        return Layer(name, shape, "tokens" if len(shape) == 2 else "row") if shape else None
    return None


def _is_channels_last(shape: Shape, input_shape: Shape) -> bool:
    """Return whether an output has [height, width, dim] rather than [dim, height, width] at its end.

    Networks reduce height and width by the same factor.
    """

    def distortion(height: int, width: int) -> float:
        return abs(math.log(input_shape[-2] / height) - math.log(input_shape[-1] / width))

    return distortion(*shape[-3:-1]) < distortion(*shape[-2:])


def _tensor_of(result: Any) -> Tensor | None:
    """Return the output of a layer: a tensor, or the first of several."""
    if isinstance(result, tuple | list):
        result = cast("Sequence[Any]", result)[0] if result else None
    result = getattr(result, "last_hidden_state", result)
    return result if isinstance(result, Tensor) and result.is_floating_point() else None


def _chosen(spec: StreamSpec, network: Network) -> Layer:
    """Return the layer that the stream's settings name, or that of the features."""
    try:
        layers = layers_of(network)
    except Exception as error:  # networks raise errors of any type for unsuitable input
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"extractor {spec.extractor}: the network does not take input of {list(network.input_shape)} ({reason}); "
            "set sampling.frames_per_segment and settings.geometry"
        ) from error
    wanted: str = spec.settings["layer"]
    if not wanted:
        return _features_layer(spec, network, layers)
    by_name = {layer.name: layer for layer in layers}
    ends = [name for name in by_name if f".{name}".lower().endswith(f".{wanted}".lower())]
    if wanted in by_name or len(ends) == 1:
        return by_name[wanted if wanted in by_name else ends[0]]
    see = "`arabesque recipes RECIPE --layers STREAM` lists them"
    if ends:
        raise ConfigError(
            f"extractor {spec.extractor}: {len(ends)} paths of layers end with {wanted!r}, such as "
            f"{' and '.join(ends[:2])}; write more of the path ({see})"
        )
    by_end = {end: name for name in by_name for end in (name.lower(), name.lower().rpartition(".")[2])}
    near = dict.fromkeys(by_end[end] for end in get_close_matches(wanted.lower(), by_end))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"extractor {spec.extractor}: the network has no layer {wanted!r} whose output can be stored; {hint}{see}"
    )


def _features_layer(spec: StreamSpec, network: Network, layers: Sequence[Layer]) -> Layer:
    """Return the layer whose mean is the row of the network."""
    if network.features is not None:
        return next(layer for layer in layers if layer.name == network.features)
    has_tokens = [layer.kind == "tokens" and layer.shape[0] > 1 for layer in layers]
    last_tokens = max((place for place, found in enumerate(has_tokens) if found), default=-1)
    maps = [layer for layer in layers[last_tokens + 1 :] if layer.kind == "map" and math.prod(layer.shape[-3:-1]) > 1]
    of_features = [layer for layer in maps if layer.shape[-1] == network.dim]
    if of_features:
        return of_features[-1]
    if maps:
        action = f"set layer, e.g. layer = {maps[-1].name!r}"
    else:
        kind: Any = type(network.settings).model_fields["output"].annotation
        own = [name for name in get_args(kind) if name not in ("time", "map")]
        action = f"{'its only output is' if len(own) == 1 else 'its outputs are'} {', '.join(own)}"
    raise ConfigError(
        f"extractor {spec.extractor}: output = {spec.settings['output']!r} needs a map whose mean is the row, which "
        f"this network does not have; {action}"
    )


def _row_shape(layer: Layer, output: str, network: Network) -> Shape:
    *axes, dim = layer.shape
    if output not in ("time", "map"):
        return (dim,)
    if layer.kind != "map":
        has = "a single row" if layer.kind == "row" else f"{axes[0]} tokens without height and width"
        raise ConfigError(
            f"layer {layer.name}: its output is {has}, not a map; set output = 'pooled', or another layer"
        )
    if len(axes) == 3:
        axes[0] -= _steps(layer.name, network) - 1
    return (*axes, dim) if output == "map" else (axes[0], dim)


def _steps(layer: str, network: Network) -> int:
    return network.pooled_steps if layer == network.features else 1


class InnerLayer(nn.Module):
    """A network that returns the output of one of its layers, pooled according to ``output``, ``[n, *row_shape]``.

    Args:
        network: The network.
        settings: Settings of a resolved stream.
        features: See `Network`.
        pooled_steps: See `Network`.
    """

    def __init__(self, network: nn.Module, settings: Any, features: str | None = None, pooled_steps: int = 1) -> None:
        super().__init__()
        self.network = network
        self._layer: str = settings.layer
        self._output: str = settings.output
        self._steps = pooled_steps if settings.layer == features else 1

    def extra_repr(self) -> str:
        return f"{self._layer}, {self._output}, steps={self._steps}"

    def forward(self, inputs: Tensor) -> Tensor:
        results: list[Any] = []

        def record(_: nn.Module, given: Any, result: Any) -> None:
            results.append(result)

        hook = self.network.get_submodule(self._layer).register_forward_hook(record)
        try:
            self.network(inputs)
        finally:
            hook.remove()
        values = _tensor_of(results[-1])
        assert values is not None
        if values.dim() != inputs.dim():  # tokens, or a row
            return values.mean(dim=1) if values.dim() == 3 else values
        if not _is_channels_last(tuple(values.shape[1:]), tuple(inputs.shape[1:])):
            values = values.movedim(1, -1)
        if self._steps > 1:
            values = values.unfold(1, self._steps, 1).mean(dim=-1)
        if self._output == "map":
            return values.contiguous()
        return values.mean(dim=(-3, -2) if self._output == "time" else tuple(range(1, values.dim() - 1)))
