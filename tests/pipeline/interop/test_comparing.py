from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arabesque.manifests.errors import InputError
from arabesque.pipeline.interop.comparing import MAX_POOLED, compared, paired, verdicts
from arabesque.pipeline.interop.feature_arrays import FeatureArray
from arabesque.pipeline.interop.stored_settings import setting_differences, stored_settings


def array(video_id: str, values: np.ndarray, stream: str = "vst") -> FeatureArray:
    return FeatureArray(video_id, stream, Path(f"{video_id}.npy"), lambda: values)


def features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((12, 6)).astype(np.float32)


def compare_one(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-4):
    return next(compared([(array("v", a), array("v", b))], tolerance))


def test_videos_are_paired_by_id_and_stream():
    a = [array("1", features()), array("2", features()), array("1", features(), "ast")]
    b = [array("2", features()), array("3", features()), array("1", features(), "ast")]
    pairing = paired(a, b)
    assert [(one.video_id, one.stream) for one, _ in pairing.pairs] == [("2", "vst"), ("1", "ast")]
    assert pairing.only_a == (("1", "vst"),)
    assert pairing.only_b == (("3", "vst"),)


def test_a_side_without_stream_names_gets_the_only_stream_of_the_other():
    named, bare = [array("1", features())], [array("1", features(), "")]
    assert [other.stream for _, other in paired(named, bare).pairs] == ["vst"]
    assert [one.stream for one, _ in paired(bare, named).pairs] == ["vst"]
    assert [one.stream for one, _ in paired(bare, bare).pairs] == [""]
    with pytest.raises(InputError, match="give --stream, one of ast, vst"):
        paired([*named, array("1", features(), "ast")], bare)


def test_nothing_in_common_is_an_error():
    with pytest.raises(InputError, match=r"no video and stream in common: A has 1, such as \('1', 'vst'\)"):
        paired([array("1", features())], [array("01", features())])


def test_equal_arrays_are_the_same_at_tolerance_zero():
    found = compare_one(features(), features(), 0.0)
    assert found.same
    assert (found.max_error, found.relative_error) == (0, 0)
    np.testing.assert_allclose(found.cosines, np.ones(12))


def test_the_tolerance_decides():
    a, b = features(), features()
    b[3, 2] += 0.01
    relative = 0.01 / np.abs(b).max()
    found = compare_one(a, b)
    assert not found.same
    assert found.max_error == pytest.approx(0.01, rel=1e-4)
    assert found.relative_error == pytest.approx(relative, rel=1e-4)
    assert np.argmin(found.cosines) == 3
    assert compare_one(a, b, relative * 1.01).same
    assert not compare_one(a, b, relative * 0.99).same


def test_numbers_are_over_the_segments_that_both_have():
    a = features()
    found = compare_one(a, a[:9], tolerance=1.0)
    assert not found.same  # whatever the tolerance
    assert (found.shape_a, found.shape_b, len(found.cosines)) == ((12, 6), (9, 6), 9)
    assert found.relative_error == 0
    assert found.explanation.cause == "truncated"


def test_rows_that_cannot_be_compared_have_no_numbers():
    wide = compare_one(features(), features()[:, :3])
    assert (wide.cosines, wide.max_error, wide.relative_error, wide.explanation.cause) == ((), None, None, "other-dim")
    holed = features()
    holed[0, 0] = np.nan
    assert compare_one(holed, features()).explanation.cause == "not-finite"
    assert not compare_one(holed, holed).same


def test_halves_are_compared_by_their_mean():
    a = features()
    found = compare_one(np.stack([a + 1, a - 1], axis=1), a)
    assert found.relative_error == pytest.approx(0, abs=1e-6)
    assert found.explanation.cause == "halves"


def test_a_stream_is_judged_over_all_its_videos():
    quiet = features(7) * 2
    quiet[0, 0] = np.nan
    pairs = [(array(f"late {k}", features(k)[1:]), array(f"late {k}", features(k)[:-1])) for k in range(40)]
    pairs += [(array(f"same {k}", features(k)), array(f"same {k}", features(k))) for k in range(5)]
    pairs += [(array("holed", features(7)), array("holed", quiet))]
    pairs += [(array("1", features(), "ast"), array("1", features(), "ast"))]
    late, same = verdicts(pairs, list(compared(pairs, 1e-4)), 1e-4)
    assert (late.stream, late.num_videos, late.num_different) == ("vst", 46, 41)
    assert late.diagnoses == {"lag": 40, "not-finite": 1}
    assert late.explanation.cause == "lag"
    assert late.explanation.sentence.startswith("B is 1 segment late")
    assert late.num_together == MAX_POOLED
    assert (same.stream, same.num_different, same.explanation, same.largest_error) == ("ast", 0, None, 0)


def test_a_stream_whose_numbers_cannot_be_compared_has_a_verdict():
    pairs = [(array(str(k), features(k)), array(str(k), features(k)[:, :3])) for k in range(2)]
    [verdict] = verdicts(pairs, list(compared(pairs, 1e-4)), 1e-4)
    assert (verdict.explanation.cause, verdict.largest_error) == ("other-dim", None)


def test_different_settings_of_stores_are_listed():
    def manifest(remainder: str, weights: str, **settings: object) -> dict[str, Any]:
        spec = {"sampling": {"fps": 5.0, "remainder": remainder}, "weights": {"network": "i3d"}, "settings": settings}
        entry = {"settings_digest": "0", "dim": 6, "extractor_version": 1, "weights": {"network": weights}}
        streams = {"rgb": entry, "imported": entry}
        return {"format": 1, "recipe": {"streams": {"rgb": spec}}, "streams": streams, "made_with": {}}

    a = stored_settings(manifest("drop-tail", "0123456789abcdef", geometry={"steps": [{"size_px": [8, 8]}]}))
    b = stored_settings(manifest("drop-both", "random:0", geometry={"steps": []}, batch_norm_eps=1e-5))
    assert set(a) == {"rgb"}
    assert [str(each) for each in setting_differences(a["rgb"], b["rgb"])] == [
        "sampling.remainder: drop-tail (A), drop-both (B)",
        'geometry.steps: [{"size_px": [8, 8]}] (A), [] (B)',
        "weights.network: 0123456789ab (A), random:0 (B)",
        "batch_norm_eps: none (A), 1e-05 (B)",
    ]
    assert setting_differences(a["rgb"], a["rgb"]) == []
