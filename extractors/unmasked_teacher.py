"""``unmt:l16_f8`` and ``unmt:l16_f16``: Unmasked Teacher ViT-L/16 (Li et al., ICCV 2023), as in PAMFN's UMT features.

The two networks differ in the number of frames; the file for 16 frames has learned positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..manifests.errors import ConfigError
from ..manifests.streams import CenterCrop, Geometry, Normalization, ShortSide
from .checkpoints import StateDict, Weights, load_network
from .network import ClipLengths, NetworkCard

SIZES = {"l16": (1024, 24, 16)}
"""Width, number of layers and number of heads."""
FRAMES = {"f8": 8, "f16": 16}
SIDE_PX = 224
PATCH_PX = 16
NUM_PATCHES = (SIDE_PX // PATCH_PX) ** 2
FIXED_POSITIONS = 8
"""Number of frames with fixed positions; with other numbers, positions are learned."""
EPS = 1e-6


def unmasked_teacher_card(variant: str) -> NetworkCard:
    """Return the card of ``unmt:l16_f8`` or ``unmt:l16_f16``.

    Raises:
        ConfigError: The name is not one of these networks.
    """
    size, _, frames = variant.partition("_")
    if size not in SIZES or frames not in FRAMES:
        names = ", ".join(f"unmt:{each}_{length}" for each in SIZES for length in FRAMES)
        raise ConfigError(f"extractor unmt:{variant or '?'} is not known; there are {names}")
    num_frames = FRAMES[frames]
    return NetworkCard(
        input="clip",
        load=lambda settings, weights: load_unmasked_teacher(size, num_frames, weights),
        dim=SIZES[size][0],
        layouts=("unmasked-teacher",),
        batch_size=(1, 8),
        # as in the authors' test transform: short side 224, center crop
        geometry=Geometry(
            steps=(ShortSide(short_side_px=SIDE_PX), CenterCrop(center_crop_px=(SIDE_PX, SIDE_PX))), antialias=False
        ),
        normalization=Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        clip_lengths=ClipLengths(num_frames, num_frames),
        input_size=(SIDE_PX, SIDE_PX),
        license="MIT",
        source="Li et al., ICCV 2023; OpenGVLab/unmasked_teacher, single_modality",
    )


def load_unmasked_teacher(size: str, num_frames: int, weights: Weights) -> nn.Module:
    """Return the network ``float [n, 3, time, 224, 224] → [n, dim]``."""
    return load_network(
        lambda: UnmaskedTeacher(*SIZES[size], num_frames), weights, {"unmasked-teacher": _without_classifier}
    )


def _without_classifier(state_dict: StateDict) -> StateDict:
    return {name: value for name, value in state_dict.items() if not name.startswith("head.")}


class UnmaskedTeacher(nn.Module):
    """The authors' fine-tuned network without its classifier; its output is the layer norm of the mean over all tokens.

    Its parameters have the names of the authors' files.
    """

    def __init__(self, width: int, num_layers: int, num_heads: int, num_frames: int) -> None:
        super().__init__()
        patch = (1, PATCH_PX, PATCH_PX)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, patch, patch)})
        positions = sine_positions(FIXED_POSITIONS * NUM_PATCHES, width)
        if num_frames == FIXED_POSITIONS:
            self.register_buffer("pos_embed", positions, persistent=False)
        else:
            self.pos_embed = nn.Parameter(_in_time(positions, num_frames))
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.fc_norm = nn.LayerNorm(width, EPS)

    def forward(self, clips: Tensor) -> Tensor:
        tokens = self.patch_embed["proj"](clips).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc_norm(tokens.mean(dim=1))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm; ``float [n, tokens, width]``."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(tokens))))


class Attention(nn.Module):
    """Attention between all tokens; keys have no bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = functional.linear(tokens, self.qkv.weight, bias)
        queries, keys, values = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(found.transpose(1, 2).flatten(2))


def sine_positions(num_positions: int, width: int) -> Tensor:
    """Return positions ``float32 [1, num_positions, width]``: sines in even columns, cosines in odd columns."""
    rates = 10000 ** (-2 * (torch.arange(width, dtype=torch.float64) // 2) / width)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * rates
    table = torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos())
    return table[None].float()


def _in_time(positions: Tensor, num_frames: int) -> Tensor:
    """Interpolate positions of 8 frames: the initial values of fine-tuning, which a checkpoint replaces."""
    by_patch = torch.unflatten(positions[0], 0, (FIXED_POSITIONS, NUM_PATCHES)).permute(1, 2, 0)
    longer = functional.interpolate(by_patch, size=num_frames, mode="linear", align_corners=False)
    return longer.permute(2, 0, 1).flatten(0, 1)[None]
