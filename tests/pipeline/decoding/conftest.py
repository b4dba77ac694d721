"""Decoders, and a folder to write clips to."""

from __future__ import annotations

import pytest
from decoding_checks import Writer, build

from arabesque.pipeline.decoding.decoders import BACKENDS, Decoder


@pytest.fixture(params=sorted(BACKENDS))
def decoder(request) -> Decoder:
    return build(request.param)


@pytest.fixture(scope="module")
def pyav() -> Decoder:
    return build("pyav")


@pytest.fixture
def write(tmp_path) -> Writer:
    return Writer(tmp_path)
