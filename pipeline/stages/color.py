"""Conversion of YUV planes to RGB on any device, with the same values as FFmpeg's swscale.

For 4:2:0 video of even height, swscale on x86 does not interpolate chroma, computes in 13-bit fixed point and rounds
every product down. Integer arithmetic gives the same values on all devices (``test_color.py`` checks that the
difference is 0), so that features do not depend on where color is converted. On a CPU swscale is faster
(``benchmarks/decoding.py``).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..decoding.planes import ColorSpace, Matrix

_MATRICES: dict[Matrix, tuple[int, int, int, int]] = {
    "bt601": (104597, 132201, -25675, -53279),
    "bt709": (117489, 138438, -13975, -34925),
    "fcc": (104448, 132798, -24759, -53109),
    "smpte240m": (117579, 136230, -16907, -35559),
    "bt2020": (110013, 140363, -12277, -42626),
}
"""FFmpeg's coefficients for limited range, in 1/65536: V to red, U to blue, U to green, V to green."""


def to_rgb(planes: Tensor, color: ColorSpace) -> Tensor:
    """Convert 4:2:0 planes to RGB.

    Args:
        planes: ``uint8 [n, height * 3 / 2, width]``, the layout of `Planes.write_to`.
        color: Matrix and range of the planes.

    Returns:
        ``uint8 [n, 3, height, width]`` on the same device.
    """
    num, rows, width = planes.shape
    height = 2 * rows // 3
    sizes = [height * width, height * width // 4, height * width // 4]
    parts = cast("tuple[torch.Tensor, ...]", planes.reshape(num, -1).split(sizes, dim=1))  # pyright: ignore[reportUnknownMemberType]
    black, luma, red_v, blue_u, green_u, green_v = _coefficients(color)
    # 2 × 2 pixels share one chroma sample; in interlaced pictures they are in the same field
    fields = 2 if color.interlaced else 1
    y = _scaled(parts[0], black, luma).view(num, height // 2 // fields, 2, fields, width // 2, 2)
    u, v = (part.view(num, height // 2 // fields, 1, fields, width // 2, 1) for part in parts[1:])
    rgb = torch.empty((num, 3, height, width), dtype=torch.uint8, device=planes.device)
    greens = _scaled(u, 128, green_u).add_(_scaled(v, 128, green_v))
    for channel, chroma in enumerate((_scaled(v, 128, red_v), greens, _scaled(u, 128, blue_u))):
        rgb[:, channel].view_as(y).copy_((y + chroma).clamp_(0, 255))
    return rgb


def _scaled(samples: Tensor, zero: int, factor: int) -> Tensor:
    """Return ``(samples − zero) · factor / 2¹³``, rounded down, as int16."""
    return samples.int().sub_(zero).mul_(factor).bitwise_right_shift_(13).to(torch.int16)


def _coefficients(color: ColorSpace) -> tuple[int, int, int, int, int, int]:
    """Return the luma offset, then the factors of luma, V to red, U to blue, U to green, V to green, in 1/8192."""
    factors = _MATRICES[color.matrix]
    black, luma = 16, 65536 * 255 // 219
    if color.full_range:
        black, luma = 0, 65536
        factors = tuple(int(factor * 224 / 255) for factor in factors)  # rounded towards zero, as in C
    red_v, blue_u, green_u, green_v = ((factor + 4) >> 3 for factor in factors)
    return black, (luma + 4) >> 3, red_v, blue_u, green_u, green_v
