"""PAMFN's family of networks with an eighth of its channels: the same layers, at a fraction of the cost on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from arabesque.models import late_fusion, msaf, pamfn, pamfn_branch, pamfn_fusion

CHANNELS = 32
"""The published networks have 256."""


@contextmanager
def narrow_networks() -> Iterator[None]:
    """Build PAMFN, its branches, MSAF and late fusion with `CHANNELS` channels."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (late_fusion, msaf, pamfn, pamfn_branch, pamfn_fusion):
            patch.setattr(module, "WIDTH", CHANNELS)
        patch.setattr(pamfn, "START_WIDTH", 3 * CHANNELS)
        yield
