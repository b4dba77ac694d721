"""Every extractor of the table satisfies the contract of `arabesque.testing.check_extractor`.

The table gives the extractors; one needs an entry in `extractor_cases.CASES` only if 16 frames and a second of audio
do not suit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from extractor_cases import CASES, Case, OnePerson, SeededPerson, any_aspect_settings

from arabesque.extractor_contract import EXTRACTOR_CHECKS, ExtractorContract
from arabesque.extractors import athlete_search, people
from arabesque.extractors.table import EXTRACTORS
from arabesque.manifests.streams import Precision

NAMES = (*EXTRACTORS, "pytorchvideo")
"""Families other than pytorchvideo are in `test_network_families`."""
SLOW = ("key_points", "people", "c3d", "panns_cnn14", "transnet", "r2plus1d_34")
"""Slow on a CPU; `test_c3d_vggish_panns`, `test_s3d_r2plus1d_unmt` and `test_shot_streams` run their parts."""
LARGE = ("pose", "i3d_rgb", "i3d_flow", "video_swin_b", "ast")
"""Networks whose forward passes take seconds. `NetworkExtractor` runs them as it runs s3d and resnet_frame, which the
fast tests check in all respects."""
OF_THE_RUNNER = (
    "check_rows_are_in_order_and_the_same_alone",
    "check_a_batch_may_hold_two_frame_sizes",
    "check_prepare_runs_in_threads_and_keeps_its_input",
    "check_forward_runs_in_threads_if_it_claims_to",
    "check_the_seed_decides_random_weights",
)
"""Checks that are slow for `LARGE` networks."""


EMULATED = (*LARGE, "s3d", "resnet_frame", "resnet_crop")
"""Networks that a CPU without half-precision units emulates in many times the time of float32; vggish and pytorchvideo
are small enough for the fast tests."""


FLOAT32_ONLY = [(name, "check_half_precision") for name in ("people", "pose", "key_points")]
"""Key points are maxima of maps, and boxes are present or absent: both are always computed in float32."""


def param(name: str, *check: str) -> Any:
    is_slow = name in SLOW or (name in LARGE and (not check or check[0] in OF_THE_RUNNER))
    is_slow |= name in EMULATED and check == ("check_half_precision",)
    return pytest.param(name, *check, marks=[pytest.mark.slow] if is_slow else [])


@pytest.fixture(scope="module")
def contract(request: pytest.FixtureRequest) -> Iterator[ExtractorContract]:
    case = CASES.get(request.param, Case())
    with pytest.MonkeyPatch.context() as patch:
        if request.param in ("pose", "key_points"):  # an untrained detector finds no one
            patch.setattr(athlete_search, "load_detector", lambda *_: OnePerson())
        if request.param == "people":
            patch.setattr(people, "load_detector", lambda kind, weights, *_: SeededPerson(weights))
        yield ExtractorContract(
            request.param + case.variant,
            num_frames=case.frames,
            settings=case.settings,
            any_aspect_settings=any_aspect_settings(request.param + case.variant),
        )


@pytest.mark.parametrize(
    ("contract", "check"),
    [param(name, check) for name in NAMES for check in EXTRACTOR_CHECKS if (name, check) not in FLOAT32_ONLY],
    indirect=["contract"],
)
def test_extractor_keeps_the_contract(contract: ExtractorContract, check: str) -> None:
    getattr(contract, check)()


@pytest.mark.parametrize("contract", [param(name) for name in NAMES], indirect=True)
def test_the_case_has_frames_of_two_sizes(contract: ExtractorContract) -> None:
    if contract.extractor.frames is None:
        pytest.skip("takes no frames")
    if getattr(contract.kind, "input_size", None) is not None:
        pytest.skip("takes pictures of one size")
    _, (landscape, portrait, _) = contract.segments_of_two_frame_sizes
    assert landscape.frames is not None
    assert portrait.frames is not None
    assert portrait.frames.shape != landscape.frames.shape


WITHOUT_FLOAT16 = ("people", "pose", "key_points", "s3d")
"""S3D differs by 5e-3 of the largest number on random weights, at any size; its trained weights were not available."""


@pytest.mark.slow  # minutes on a CPU without half-precision units
@pytest.mark.parametrize("contract", [name for name in NAMES if name not in WITHOUT_FLOAT16], indirect=True)
@pytest.mark.parametrize("precision", ["float16"])
def test_float16_gives_float32_rows_within_its_tolerance(contract: ExtractorContract, precision: Precision) -> None:
    contract.check_half_precision(precision)
