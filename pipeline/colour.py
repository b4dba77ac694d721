"""From luma and chroma to RGB on any device, with the numbers that FFmpeg's swscale gives.

swscale's converter for x86 reads 4:2:0 of even height without interpolating chroma, in fixed point of 13 bits, and
rounds every product down. Whole numbers do the same anywhere: the difference is 0 (``test_colour.py``), so that
features do not depend on where colour was converted. On a CPU swscale is faster (``benchmarks/decoding.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decoding.planes import Colour, Matrix

_MATRICES: dict[Matrix, tuple[int, int, int, int]] = {
    "bt601": (104597, 132201, -25675, -53279),
    "bt709": (117489, 138438, -13975, -34925),
    "fcc": (104448, 132798, -24759, -53109),
    "smpte240m": (117579, 136230, -16907, -35559),
    "bt2020": (110013, 140363, -12277, -42626),
}
"""Red of V, blue of U, green of U, green of V, in 65536ths, for luma and chroma of limited range: FFmpeg's table."""


def to_rgb(planes: Tensor, colour: Colour) -> Tensor:
    """``uint8 [n, height · 3 / 2, width]`` as `Planes.write_to` leaves them → ``uint8 [n, 3, height, width]``."""
    num, rows, width = planes.shape
    height = 2 * rows // 3
    parts = planes.reshape(num, -1).split([height * width, height * width // 4, height * width // 4], dim=1)
    black, luma, red_v, blue_u, green_u, green_v = _coefficients(colour)
    # every 2 × 2 pixels share their chroma
    y = _scaled(parts[0], black, luma).view(num, height // 2, 2, width // 2, 2)
    u, v = (part.view(num, height // 2, 1, width // 2, 1) for part in parts[1:])
    rgb = torch.empty((num, 3, height, width), dtype=torch.uint8, device=planes.device)
    greens = _scaled(u, 128, green_u).add_(_scaled(v, 128, green_v))
    for channel, chroma in enumerate((_scaled(v, 128, red_v), greens, _scaled(u, 128, blue_u))):
        rgb[:, channel].view_as(y).copy_((y + chroma).clamp_(0, 255))
    return rgb


def _scaled(samples: Tensor, zero: int, factor: int) -> Tensor:
    """``(samples − zero) · factor / 2¹³``, rounded down, as int16."""
    return samples.int().sub_(zero).mul_(factor).bitwise_right_shift_(13).to(torch.int16)


def _coefficients(colour: Colour) -> tuple[int, int, int, int, int, int]:
    """Luma's zero; then the factors of luma, red of V, blue of U, green of U and green of V, in 8192nds."""
    factors = _MATRICES[colour.matrix]
    black, luma = 16, 65536 * 255 // 219
    if colour.full_range:
        black, luma = 0, 65536
        factors = tuple(int(factor * 224 / 255) for factor in factors)  # towards zero, as C divides
    red_v, blue_u, green_u, green_v = ((factor + 4) >> 3 for factor in factors)
    return black, (luma + 4) >> 3, red_v, blue_u, green_u, green_v
