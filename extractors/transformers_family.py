"""``transformers:NAME-or-path``: a vision or audio network that the installed transformers implements.

Geometry, normalization and sampling rate are those of the checkpoint's processor. Before a stream is accepted, the
pixels of our geometry are compared with those of the processor on two pictures. A checkpoint that needs code of its
repository is an error.
"""

from __future__ import annotations

import inspect
from functools import partial
from itertools import product
from operator import itemgetter
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ..manifests.errors import ConfigError
from ..manifests.streams import (
    CenterCrop,
    Geometry,
    GeometryStep,
    Interpolation,
    Normalization,
    Patches,
    Record,
    ResizeArithmetic,
    ShortSide,
    Size,
)
from .checkpoints import RandomWeights, Weights
from .geometry import apply_geometry, output_size
from .hub_snapshot import PREFIX, CheckpointFolder, find_checkpoint
from .network import ClipLengths, NetworkCard
from .onednn_layers import with_onednn
from .protocol import AudioNeed
from .sentences import MAX_SENTENCES, sentence_rows
from .transformers_checkpoints import filled, one_line, read_config
from .without_memory import without_memory

Output = Literal["pooled", "time", "map", "cls", "patches", "similarity"]

FEATURES = ("get_video_features", "get_image_features", "get_vision_features")
"""Methods of networks with several towers that return the embedding of pictures."""
INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""PIL's number of a filter in processor configurations → our name."""
COMPARED_SIZES = ((250, 333), (341, 256))
"""Height and width of the pictures on which a processor is compared with our geometry."""
ARITHMETICS: tuple[ResizeArithmetic, ...] = ("torch", "pil", "float")
"""Arithmetics that are tried. Most processors resize with torchvision, ViViT's with PIL (one level of difference in up
to 0.5 % of the pixels), DINOv3's in floating point."""
ODD_MARGINS: tuple[Literal["down", "half-even"], ...] = ("down", "half-even")
SAME_PIXELS = 0.01
"""Largest difference of pixels, in levels of 255, that the rounding of the normalization can cause."""
TRIED_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)


class VisionOptions(Record):
    output: Output = "pooled"
    """``pooled``: the network's pooled output if it has one, else its class token, else the mean of its tokens.
    ``cls``: the class token after the last layer. ``patches``: the mean of all other tokens. ``similarity``: the cosine
    between ``pooled`` and each of the sentences. ``time`` and ``map``, for networks with a map before their pooling:
    the mean over height and width, [time, dim], and all positions, [time, height, width, dim]; for networks on single
    frames [height, width, dim]."""
    sentences: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=MAX_SENTENCES)] = ()
    """Sentences for the text tower, such as names of elements. The store has a row for each of them."""
    tokenizer_sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """Digest of the tokenizer of the sentences; filled in if there are sentences."""


def transformers_card(variant: str) -> NetworkCard:
    """Return the card of ``transformers:NAME-or-path``.

    Raises:
        ConfigError: The checkpoint does not exist, it needs code of its repository, or its network or processor does
            not accept pictures or audio.
    """
    if not variant:
        raise ConfigError(
            "extractor transformers: write transformers:NAME or a path, e.g. transformers:facebook/dinov2-base"
        )
    checkpoint = find_checkpoint(variant)
    config = read_config(checkpoint, variant)
    facts: dict[str, Any] = {
        "layouts": (),
        "default_weights": f"{PREFIX}{checkpoint.name}",
        "license": "see the model card",
        "source": f"https://huggingface.co/{variant.partition('@')[0]}",
    }
    processor = _processor(checkpoint, variant)
    if hasattr(processor, "sampling_rate"):
        return _audio_card(variant, config, processor, facts)
    network = without_memory(lambda: _build(config))
    takes = _input(network, variant)
    geometry, normalization = _preprocessing(processor, variant)
    size = output_size(480, 640, geometry)
    lengths = _lengths(network, takes, config, size) if takes.clip else ClipLengths()
    dim = _dim(network, takes, lengths.at_least if takes.clip else 1, size, variant)
    return NetworkCard(
        input="clip" if takes.clip else "image",
        load=lambda settings, weights: _tower(checkpoint, config, takes, settings, weights),
        dim=dim,
        batch_size=(2, 8) if takes.clip else (8, 64),
        geometry=geometry,
        normalization=normalization,
        options=VisionOptions,
        complete=partial(_complete, checkpoint, variant, hasattr(network, "get_text_features"), takes.method),
        dim_of=lambda settings: len(settings.sentences) if settings.output == "similarity" else dim,
        clip_lengths=lengths,
        **facts,
    )


class Takes(Record):
    """The call by which a network processes pictures."""

    method: str
    """``forward``, or one of `FEATURES`."""
    argument: str
    clip: bool


def _complete(checkpoint: CheckpointFolder, name: str, has_text: bool, method: str, settings: VisionOptions) -> Record:
    """Return the settings with the digest of the tokenizer; raise `ConfigError` for sentences that cannot be used."""
    if settings.output == "similarity" and not settings.sentences:
        raise ConfigError(f'extractor transformers:{name}: output = "similarity" needs settings.sentences; give a list')
    if not settings.sentences:
        return settings
    if not has_text or method == "forward":
        raise ConfigError(
            f"extractor transformers:{name}: the network has no known text tower; remove "
            "settings.sentences, or choose a checkpoint of CLIP, SigLIP or X-CLIP"
        )
    digest = find_checkpoint(checkpoint.name, tokenizer=True).tokenizer_digest()
    if settings.tokenizer_sha256 not in ("", digest):
        raise ConfigError(
            f"extractor transformers:{name}: the tokenizer is not the one of settings.tokenizer_sha256; remove this "
            "setting, or restore the checkpoint"
        )
    return settings.model_copy(update={"tokenizer_sha256": digest})


def _tower(
    checkpoint: CheckpointFolder, config: Any, takes: Takes, settings: VisionOptions, weights: Weights
) -> VisionTower:
    output: Output = "patches" if settings.output in ("time", "map") else settings.output  # they need no pooler
    network: Any = _load(config, weights, output)
    rows = None
    if settings.sentences:
        folder = find_checkpoint(checkpoint.name, tokenizer=True)
        rows = sentence_rows(network, folder, settings.sentences)
    if hasattr(network, "text_model"):  # to free the memory of the text tower
        network.text_model = nn.Identity()
    return VisionTower(with_onednn(network), takes, output, rows)


class VisionTower(nn.Module):
    """Maps pictures ``float [n, 3, height, width]`` or clips ``[n, 3, time, height, width]`` to ``[n, dim]``.

    Args:
        network: The network.
        takes: The call by which it processes pictures.
        output: The output that is the row.
        rows: The embeddings of the sentences, ``float32 [sentences, dim]``.
    """

    def __init__(self, network: nn.Module, takes: Takes, output: Output, rows: Tensor | None = None) -> None:
        super().__init__()
        self.network: Any = network
        self.sentence_rows = rows
        self._takes, self._output = takes, output
        if output == "similarity":
            assert rows is not None
            self.directions: Tensor
            self.register_buffer("directions", functional.normalize(rows, dim=1))
            self._output = "pooled"
        vision = getattr(network, "vision_model", None)
        if self._output != "pooled" and vision is not None:
            self.network, self._takes = vision, takes.model_copy(update={"method": "forward"})

    def forward(self, pixels: Tensor) -> Tensor:
        row = self._row(pixels)
        if "directions" not in self._buffers:
            return row
        return functional.normalize(row, dim=1) @ self.directions.to(row.dtype).T

    def _row(self, pixels: Tensor) -> Tensor:
        if self._takes.clip:
            pixels = pixels.transpose(1, 2)
        given: dict[str, Any] = {self._takes.argument: pixels}
        method = getattr(self.network, self._takes.method)
        parameters = inspect.signature(method).parameters
        if "skip_predictor" in parameters:  # V-JEPA 2: only the encoder
            given["skip_predictor"] = True
        if "spatial_shapes" in parameters:  # SigLIP 2: patches of pictures of any aspect ratio
            config = getattr(self.network.config, "vision_config", self.network.config)
            given = _as_patches(pixels, config.patch_size)
        found: Any = method(**given)
        pooled: Any = found if isinstance(found, Tensor) else getattr(found, "pooler_output", None)
        if self._output == "pooled" and pooled is not None:
            return _one_row(pooled)
        tokens: Tensor = found if isinstance(found, Tensor) else found.last_hidden_state
        num_special = _special_tokens(self.network)
        if tokens.ndim != 3:
            return _one_row(tokens)
        if self._output == "cls" or (self._output == "pooled" and num_special):
            return tokens[:, 0]
        return tokens[:, num_special:].mean(dim=1)


def _as_patches(pixels: Tensor, patch_px: int) -> dict[str, Tensor]:
    """Cut ``float [n, 3, height, width]`` into ``[n, patches, patch_px · patch_px · 3]``, without padding and mask."""
    count, _, height, width = pixels.shape
    rows, columns = height // patch_px, width // patch_px
    cut = torch.unflatten(pixels, 3, (columns, patch_px))
    cut = torch.unflatten(cut, 2, (rows, patch_px))  # n, 3, rows, y, columns, x
    return {
        "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1),
        "spatial_shapes": torch.tensor([[rows, columns]] * count),
    }


def _one_row(values: Tensor) -> Tensor:
    """Return ``[n, dim]`` itself, or the mean over tokens ``[n, tokens, dim]`` or a map ``[n, dim, height, width]``."""
    if values.ndim == 4:
        return values.mean((2, 3))
    return values.mean(dim=1) if values.ndim == 3 else values


def _special_tokens(network: nn.Module) -> int:
    """Return the number of class and register tokens before the patches."""
    names = ("cls_token", "class_embedding", "class_token", "register_tokens", "distillation_token")
    tokens = {name.rpartition(".")[2]: value for name, value in network.named_parameters()}
    found = {name: value for name, value in tokens.items() if name in names}
    return sum(1 if value.ndim == 1 else int(value.shape[-2]) for value in found.values())


def _build(config: Any) -> nn.Module:
    """Return the whole network of a configuration, with random weights."""
    from transformers import AutoModel

    return cast("nn.Module", AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32))  # pyright: ignore[reportUnknownMemberType]


def _load(config: Any, weights: Weights, output: Output) -> nn.Module:
    if isinstance(weights, RandomWeights):
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(weights.seed)  # pyright: ignore[reportUnknownMemberType]
            network = _build(config)
    else:
        network = _from_folder(cast("CheckpointFolder", weights), config, output)
    return network.eval().requires_grad_(False)


def _from_folder(checkpoint: CheckpointFolder, config: Any, output: Output) -> nn.Module:
    """Return the network with the checkpoint's tensors, which must include all that the output depends on."""
    from transformers import AutoModel

    def is_needed(name: str) -> bool:
        return output in ("pooled", "similarity") or "pooler" not in name

    def hint(lacking: list[str]) -> str:
        return '; set output = "cls" or "patches"' if all("pooler" in name for name in lacking) else ""

    return filled(AutoModel, checkpoint, config, is_needed, hint)


def _processor(checkpoint: CheckpointFolder, name: str) -> Any:
    """Return the checkpoint's processor of videos, images or audio."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor

    kinds: list[Any] = [AutoImageProcessor, AutoVideoProcessor, AutoFeatureExtractor]
    if (checkpoint.path / "video_preprocessor_config.json").exists():
        kinds[:2] = AutoVideoProcessor, AutoImageProcessor
    errors: list[str] = []
    for kind in kinds:
        try:
            found = kind.from_pretrained(checkpoint.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # these classes raise errors of any type for a processor of another kind
            errors.append(one_line(error))
            continue
        if hasattr(found, "image_mean") or hasattr(found, "sampling_rate"):
            return found
    raise ConfigError(
        f"transformers:{name}: has no processor of images, videos or audio ({errors[-1] if errors else ''})"
    )


def _input(network: Any, name: str) -> Takes:
    """Return the call by which the network processes pictures; raise `ConfigError` if there is none."""
    for method in (*FEATURES, "forward"):
        if not hasattr(network, method):
            continue
        arguments = inspect.signature(getattr(network, method)).parameters
        for argument in ("pixel_values_videos", "pixel_values"):
            if argument not in arguments or (method == "forward" and "input_ids" in arguments):
                continue
            vision = getattr(network.config, "vision_config", network.config)
            frames = getattr(vision, "num_frames", None) or getattr(vision, "frames_per_clip", None)
            clip = argument == "pixel_values_videos" or method == "get_video_features" or bool(frames)
            return Takes(method=method, argument=argument, clip=clip)
    raise ConfigError(f"transformers:{name}: {type(network).__name__} has no tower for pictures")


def _preprocessing(processor: Any, name: str) -> tuple[Geometry, Normalization]:
    """Return geometry and normalization of a processor after comparing them with it on two pictures.

    Raises:
        ConfigError: The pixels are not equal.
    """
    normalization = _normalization(processor)
    found: list[tuple[float, Geometry]] = []
    for arithmetic, odd_margin in product(ARITHMETICS, ODD_MARGINS):
        geometry = _geometry(processor, arithmetic, odd_margin)
        if geometry is None:
            break
        difference = max(_largest_difference(processor, geometry, normalization, *sides) for sides in COMPARED_SIZES)
        if difference < SAME_PIXELS:
            return geometry, normalization
        found.append((difference, geometry))
    difference, geometry = min(found, key=itemgetter(0), default=(float("inf"), None))
    if geometry is not None and difference <= 1:
        return geometry, normalization
    raise ConfigError(
        f"transformers:{name}: {type(processor).__name__} does more than resize, crop and normalize; "
        "its pixels cannot be reproduced"
    )


def _geometry(
    processor: Any, arithmetic: ResizeArithmetic, odd_margin: Literal["down", "half-even"]
) -> Geometry | None:
    steps: list[GeometryStep] = []

    def crop(height: int, width: int) -> CenterCrop:
        return CenterCrop(center_crop_px=(height, width), odd_margin=odd_margin)

    if (most := getattr(processor, "max_num_patches", None)) is not None:
        return Geometry(
            steps=(Patches(max_patches=most, patch_px=processor.patch_size),),
            interpolation=INTERPOLATIONS[int(processor.resample)],
            resize_arithmetic=arithmetic,
        )
    size, cropped = _sides(getattr(processor, "size", None)), _sides(getattr(processor, "crop_size", None))
    side, crop_share = size.get("shortest_edge"), getattr(processor, "crop_pct", None)
    if getattr(processor, "do_resize", True) and side and crop_share:  # ConvNeXt
        smaller = [ShortSide(short_side_px=int(side / crop_share)), crop(side, side)]
        steps += smaller if side < 384 else [Size(size_px=(side, side))]
    elif getattr(processor, "do_resize", True) and side:
        steps += [ShortSide(short_side_px=side)]
    elif getattr(processor, "do_resize", True) and {"height", "width"} <= size.keys():
        steps += [Size(size_px=(size["height"], size["width"]))]
    if getattr(processor, "do_center_crop", False) and "height" in cropped:
        steps += [crop(cropped["height"], cropped["width"])]
    resample = getattr(processor, "resample", None)
    interpolation = INTERPOLATIONS.get(2 if resample is None else int(resample))
    if not steps or not interpolation:
        return None
    return Geometry(steps=tuple(steps), interpolation=interpolation, resize_arithmetic=arithmetic)


def _normalization(processor: Any) -> Normalization:
    scale = 255 * (getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 1.0)
    shift = 1.0 if getattr(processor, "offset", None) else 0.0  # ViViT
    normalizes = getattr(processor, "do_normalize", True)
    mean, std = (processor.image_mean, processor.image_std) if normalizes else ((0.0,) * 3, (1.0,) * 3)
    return Normalization(
        mean=tuple(_tidy((shift + value) / scale) for value in mean), std=tuple(_tidy(value / scale) for value in std)
    )


def _sides(size: Any) -> dict[str, int]:
    if size is None:
        return {}
    if isinstance(size, int):
        return {"shortest_edge": size}
    return {name: int(value) for name, value in dict(size).items() if value is not None}


def _tidy(value: float) -> float:
    return float(f"{value:.9g}")


def _largest_difference(
    processor: Any, geometry: Geometry, normalization: Normalization, height: int, width: int
) -> float:
    """Return the largest difference between the processor's pixels and ours, in levels of 255; inf if sizes differ."""
    rng = np.random.default_rng(height)
    coarse = torch.as_tensor(rng.integers(0, 256, (2, 3, height // 8, width // 8), np.uint8))
    frames = apply_geometry(coarse, Geometry(steps=(Size(size_px=(height, width)),), interpolation="bicubic"))
    try:
        theirs = _processed(processor, frames)
    except Exception:  # a processor that requires other inputs in addition to pictures
        return float("inf")
    ours = apply_geometry(frames, geometry).float()
    if theirs.shape != ours.shape:
        return float("inf")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalization.mean, normalization.std))
    return float((255 * (theirs * std + mean) - ours).abs().max())


def _processed(processor: Any, frames: Tensor) -> Tensor:
    """Return the processor's result ``[time, 3, h, w]`` for frames ``uint8 [time, 3, height, width]``."""
    parameters = inspect.signature(processor.preprocess).parameters
    if type(processor).__name__.endswith("VideoProcessor"):
        found = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
    elif "videos" in parameters:
        found = processor([[frame.permute(1, 2, 0).numpy() for frame in frames]], return_tensors="pt")
    else:
        found = processor(images=[*frames], return_tensors="pt")
    if "spatial_shapes" in found:
        rows, columns = found["spatial_shapes"][0].tolist()
        side = processor.patch_size
        patches = found["pixel_values"][:, : rows * columns].reshape(-1, rows, columns, side, side, 3)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, rows * side, columns * side)
    values = found["pixel_values_videos"] if "pixel_values_videos" in found else found["pixel_values"]
    return values[0] if values.ndim == 5 else values


def _fits(network: Any, takes: Takes, num_frames: int, size: tuple[int, int]) -> Tensor | None:
    """Return the output of the network on the meta device for one input of that size; None if it does not accept it."""
    shape = (1, 3, num_frames, *size) if takes.clip else (1, 3, *size)
    try:
        with torch.inference_mode():
            return VisionTower(network, takes, "pooled")(torch.empty(shape, device="meta"))
    except Exception:  # networks raise errors of any type for unsuitable input
        return None


def _lengths(network: nn.Module, takes: Takes, config: Any, size: tuple[int, int]) -> ClipLengths:
    """Return the clip lengths that the network accepts, found by trying them on the meta device."""
    network.to("meta")
    vision = getattr(config, "vision_config", config)
    trained = getattr(vision, "num_frames", None) or getattr(vision, "frames_per_clip", None)
    if trained is None:
        return ClipLengths()
    others = [
        length for length in TRIED_LENGTHS if length != trained and _fits(network, takes, length, size) is not None
    ]
    if not others:
        return ClipLengths(trained, trained)
    step = int(getattr(vision, "tubelet_size", 1)) if isinstance(getattr(vision, "tubelet_size", 1), int) else 1
    return ClipLengths(at_least=min(*others, trained), multiple_of=step)


def _dim(network: nn.Module, takes: Takes, num_frames: int, size: tuple[int, int], name: str) -> int:
    network.to("meta")
    row = _fits(network, takes, num_frames, size)
    if row is None or row.ndim != 2:
        raise ConfigError(
            f"transformers:{name}: {type(network).__name__} does not accept only pictures of {size[0]} × {size[1]} px; "
            "choose another network"
        )
    return int(row.shape[1])


def _audio_card(name: str, config: Any, processor: Any, facts: dict[str, Any]) -> NetworkCard:
    network: Any = without_memory(lambda: _build(config))
    known = ("get_audio_features", "get_audio_embeds")
    method = next((each for each in known if hasattr(network, each)), "forward")
    arguments = inspect.signature(getattr(network, method)).parameters
    argument = next((each for each in ("input_features", "input_values") if each in arguments), None)
    if argument is None:
        raise ConfigError(f"transformers:{name}: {type(network).__name__} has no tower for audio")
    rate_hz = int(processor.sampling_rate)
    front_end = partial(_audio_input, processor, argument)
    network.to("meta")
    with torch.inference_mode():
        row = AudioTower(network, method, argument)(front_end(torch.zeros(rate_hz))[None].to("meta"))
    return NetworkCard(
        input="audio",
        load=lambda settings, weights: _audio_tower(config, weights, method, argument),
        dim=int(row.shape[1]),
        batch_size=(4, 32),
        hears=lambda settings: AudioNeed(rate_hz),
        front_end=lambda settings: front_end,
        **facts,
    )


def _audio_tower(config: Any, weights: Weights, method: str, argument: str) -> AudioTower:
    network: Any = _load(config, weights, "pooled")
    if hasattr(network, "text_model"):
        network.text_model = nn.Identity()
    return AudioTower(with_onednn(network), method, argument)


def _audio_input(processor: Any, argument: str, waveform: Tensor) -> Tensor:
    """Return the result of the checkpoint's feature extractor for a waveform. CLAP's uses the first ten seconds."""
    longest = getattr(processor, "nb_max_samples", None)
    samples = waveform[:longest].numpy()
    found = processor(samples, sampling_rate=processor.sampling_rate, return_tensors="pt")
    return found[argument][0]


class AudioTower(nn.Module):
    """Maps results of the feature extractor to ``[n, dim]``: the network's embedding, else the mean over time."""

    def __init__(self, network: nn.Module, method: str, argument: str) -> None:
        super().__init__()
        self.network: Any = network
        self._method, self._argument = method, argument

    def forward(self, audio: Tensor) -> Tensor:
        found = getattr(self.network, self._method)(**{self._argument: audio})
        if isinstance(found, Tensor):
            return _one_row(found)
        pooled = getattr(found, "pooler_output", None)
        return _one_row(found.last_hidden_state if pooled is None else pooled)
