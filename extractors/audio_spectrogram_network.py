"""The network of the Audio Spectrogram Transformer for inputs of any length. It reads all published key layouts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import Layouts, StateDict, Weights, load_network, renamed

DIM = 768
WHOLE_INPUT_FRAMES = 1024
"""Input length of the published network: 10.24 s."""
PATCH_FRAMES, PATCH_HOP_FRAMES = 16, 10
GRID = (12, 101)
"""Number of trained positions along frequency and time, in patches."""

TRANSFORMERS4_PREFIX = "audio_spectrogram_transformer."
"""Prefix of keys in files of the classifier; files of the network without classifier do not have it."""
TRANSFORMERS4_NAMES = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
ORIGINAL_PREFIX = "module.v."
ORIGINAL_NAMES = (
    (r"^(cls_token)$", r"embeddings.\1"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
)
ORIGINAL_HEADS = ("module.mlp_head.", "module.v.head.", "module.v.head_dist.")


def load_spectrogram_transformer(weights: Weights, layer_norm_eps: float) -> nn.Module:
    """Return transformers' network for inputs ``float [n, frames, 128]`` of 16 frames or more."""
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(max_length=WHOLE_INPUT_FRAMES, layer_norm_eps=layer_norm_eps)
    network: Any = load_network(lambda: ASTModel(config), weights, LAYOUTS)
    network.embeddings = FittedEmbeddings(network.embeddings)
    return network


class FittedEmbeddings(nn.Module):
    """The published embeddings, with the positional grid fitted to the input as in the authors' code.

    Shorter inputs use the middle columns of the grid; for longer inputs the columns are interpolated.
    """

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.patch_embeddings = embeddings.patch_embeddings
        self.special_tokens = nn.Parameter(
            torch.cat([embeddings.cls_token, embeddings.distillation_token], dim=1), requires_grad=False
        )
        self.position_embeddings = embeddings.position_embeddings

    def forward(self, input_values: Tensor) -> Tensor:
        """Map ``[n, frames, 128]`` to ``[n, 2 + patches, 768]``; time varies fastest among patches."""
        columns = (input_values.shape[1] - PATCH_FRAMES) // PATCH_HOP_FRAMES + 1
        special = self.special_tokens.expand(len(input_values), -1, -1)
        tokens = torch.cat([special, self.patch_embeddings(input_values)], dim=1)
        return tokens + self._positions(columns)

    def _positions(self, columns: int) -> Tensor:
        if columns == GRID[1]:
            return self.position_embeddings
        special, patches = self.position_embeddings.split([2, GRID[0] * GRID[1]], dim=1)
        grid = patches.transpose(1, 2).unflatten(2, GRID)
        if columns < GRID[1]:
            start = GRID[1] // 2 - columns // 2
            grid = grid[..., start : start + columns]
        else:
            grid = nn.functional.interpolate(grid, (GRID[0], columns), mode="bilinear")
        return torch.cat([special, grid.flatten(2).transpose(1, 2)], dim=1)


def _renamed(
    state_dict: StateDict, prefix: str, names: Sequence[tuple[str, str]], dropped: tuple[str, ...]
) -> StateDict:
    """Rename all tensors except those of classifiers, whose prefixes are in ``dropped``."""
    kept = {name: value for name, value in state_dict.items() if not name.startswith(dropped)}
    return renamed(kept, [(f"^{re.escape(prefix)}", ""), *names])


def _from_original(state_dict: StateDict) -> StateDict:
    ours: StateDict = {}
    for name, value in _renamed(state_dict, ORIGINAL_PREFIX, ORIGINAL_NAMES, dropped=ORIGINAL_HEADS).items():
        if ".attn.qkv." not in name:
            ours[name] = value
            continue
        for part, rows in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
            ours[name.replace(".attn.qkv.", f".attention.{part}.")] = rows
    return ours


LAYOUTS: Layouts = {
    "ast-original": _from_original,
    "ast-transformers4": partial(
        _renamed, prefix=TRANSFORMERS4_PREFIX, names=TRANSFORMERS4_NAMES, dropped=("classifier.",)
    ),
    "ast-transformers5": partial(_renamed, prefix=TRANSFORMERS4_PREFIX, names=(), dropped=("classifier.",)),
}
"""Published layout → function that renames its tensors to the names of transformers 5."""
