"""Decoders, and a folder to write clips to."""

from __future__ import annotations

import pytest
from decoding_checks import Writer, build
from simulated_nvdec import SimulatedNvdec, put_card

from arabesque.pipeline.decoding.decoders import BACKENDS, Decoder


@pytest.fixture(params=sorted(BACKENDS))
def decoder(request, monkeypatch) -> Decoder:
    if request.param != "nvdec":
        return build(request.param)
    put_card(monkeypatch)
    return SimulatedNvdec(alive=lambda: None)


@pytest.fixture(scope="module")
def pyav() -> Decoder:
    return build("pyav")


@pytest.fixture
def write(tmp_path) -> Writer:
    return Writer(tmp_path)
