"""The output folder of v-iashin/video_features is read without options, with the times of its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_rows import new_store, row
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.comparing import compared
from arabesque.pipeline.interop.feature_arrays import FeatureArray
from arabesque.pipeline.interop.feature_comparison import compare_features
from arabesque.pipeline.interop.feature_files import detect, opened
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

STACK_S, FPS = 64 / 25, 25.0
"""Stacks of 64 frames at 25 frames per second."""


def features(num_rows: int = 12, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)


def write(folder: Path, name: str, times_ms: np.ndarray | None = None, **arrays: np.ndarray) -> Path:
    """Write the files of its option `on_extraction=save_numpy`."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, values in arrays.items():
        np.save(folder / f"{name}_{key}.npy", values)
    if times_ms is not None:
        np.save(folder / f"{name}_fps.npy", np.array(FPS))
        np.save(folder / f"{name}_timestamps_ms.npy", times_ms)
    return folder


def stack_times_ms(num_rows: int) -> np.ndarray:
    """The time of the frame that follows each stack."""
    return (np.arange(num_rows) + 1) * STACK_S * 1000


def times_of(path: Path) -> dict[tuple[str, str], np.ndarray]:
    with opened(path) as found:
        loaded = {(one.video_id, one.stream): one.load_times() for one in found.arrays if one.load_times is not None}
    return {name: times for name, times in loaded.items() if times is not None}


def test_color_and_flow_of_a_video_whose_id_has_underscores(tmp_path: Path) -> None:
    values = features()
    folder = write(tmp_path / "i3d", "v_1_rgb_x", stack_times_ms(12), rgb=values, flow=2 * values)
    for path in (folder, tmp_path):
        assert detect(path) == "video-features"
        times = times_of(path)
        assert times.keys() == {("v_1_rgb_x", "rgb"), ("v_1_rgb_x", "flow")}
        for each in times.values():
            np.testing.assert_allclose(each, [np.arange(12) * STACK_S, (np.arange(12) + 1) * STACK_S])
    with opened(folder) as found:
        loaded = {one.stream: one.load() for one in found.arrays}
    np.testing.assert_array_equal(loaded["flow"], 2 * values)


def test_stacks_that_overlap_and_networks_on_frames(tmp_path: Path) -> None:
    write(tmp_path / "stacks", "a", np.arange(5) * 640 + 2560, rgb=features(5))
    [times] = times_of(tmp_path / "stacks").values()
    np.testing.assert_allclose(times, [np.arange(5) * 0.64, np.arange(5) * 0.64 + STACK_S])
    write(tmp_path / "frames", "a", np.arange(6) * 40.0, resnet=features(6))
    [times] = times_of(tmp_path / "frames").values()
    np.testing.assert_allclose(times, [np.arange(6) * 0.04, np.arange(6) * 0.04 + 0.04])


def test_several_networks_of_a_family_are_streams_of_their_own(tmp_path: Path) -> None:
    for network in ("resnet18", "resnet50"):
        write(tmp_path / "resnet" / network, "day/a".replace("/", "_"), np.arange(6) * 40.0, resnet=features(6))
    write(tmp_path / "r21d" / "r2plus1d_18_16_kinetics", "day_a", r21d=features(3))
    with opened(tmp_path) as found:
        assert {(one.video_id, one.stream, one.resize) for one in found.arrays} == {
            ("day_a", "resnet18", "pil"),
            ("day_a", "resnet50", "pil"),
            ("day_a", "r21d", ""),
        }


@pytest.mark.parametrize(
    ("times_ms", "message"),
    [
        (stack_times_ms(11), "has 11 times for 12 rows of a_rgb.npy"),
        (stack_times_ms(12)[::-1], "not ascending"),
        (np.full(12, np.nan), "not ascending"),
        (np.array([b"x"] * 12), "not numeric"),
    ],
)
def test_damaged_times_are_an_error(tmp_path: Path, times_ms: np.ndarray, message: str) -> None:
    write(tmp_path, "a", times_ms, rgb=features())
    with pytest.raises(StoreError, match=f"a_timestamps_ms.npy.*{message}"):
        times_of(tmp_path)


def test_an_import_has_the_times_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "out", "a", stack_times_ms(12), rgb=features())
    result = CliRunner().invoke(commands, ["import", str(tmp_path / "out"), "--out", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    stored = FeatureStore(tmp_path / "store").read("a", "rgb")
    np.testing.assert_allclose(stored.end_s * 1000, stack_times_ms(12))
    assert stored.provenance["time_unit"] == "seconds"


def test_streams_with_and_without_times_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "out", "a", stack_times_ms(12), rgb=features())
    write(tmp_path / "out", "a", r21d=features(3))
    with pytest.raises(InputError, match="times of rgb and none of r21d"):
        CliRunner().invoke(
            commands,
            ["import", str(tmp_path / "out"), "--out", str(tmp_path / "store")],
            catch_exceptions=False,
        )


def test_a_store_is_compared_at_common_times(tmp_path: Path) -> None:
    """The store lost the third segment; the rows after it are compared with those of the same time."""
    made = row("a", "vst", segments=12)
    kept = np.arange(12) != 2
    root = new_store(tmp_path / "store")
    with StoreWriter(root) as writer:
        lost = {"features": made.features[kept], "start_s": made.start_s[kept], "end_s": made.end_s[kept]}
        writer.add(replace(made, **lost))
    write(tmp_path / "out", "a", made.end_s * 1000, rgb=made.features)
    found = compare_features(root, tmp_path / "out", stream="vst")
    [pair] = found.pairs
    assert pair.relative_error == 0
    assert pair.explanation is not None
    assert pair.explanation.cause == "other-times"
    assert "11 rows cover the same time" in pair.explanation.sentence
    write(tmp_path / "out", "a", (made.end_s * 1000)[kept], rgb=made.features[kept])
    assert compare_features(root, tmp_path / "out", stream="vst").same


def test_the_rounding_of_resized_pixels_is_named(tmp_path: Path) -> None:
    def array(values: np.ndarray, resize: str) -> FeatureArray:
        return FeatureArray("a", "rgb", Path("a.npy"), lambda: values, resize=resize)

    values = features()
    near = values + 1e-3 * features(seed=1)
    for other, cause in (("pil", "resize-rounding"), ("torch", "arithmetic"), ("", "arithmetic")):
        [one] = compared([(array(values, "torch"), array(near, other))], 1e-4)
        assert one.explanation is not None
        assert one.explanation.cause == cause
        assert ("uint8 resize, ± 1 level" in one.explanation.sentence) == (other == "pil")
    [far] = compared([(array(values, "torch"), array(values + features(seed=1), "pil"))], 1e-4)
    assert far.explanation is not None
    assert far.explanation.cause == "unexplained"


def test_rgb_is_compared_with_i3d_rgb(tmp_path: Path) -> None:
    write(tmp_path / "a", "a", stack_times_ms(12), rgb=features())
    np.savez(tmp_path / "i3d_rgb.npz", a=features())
    assert compare_features(tmp_path / "a", tmp_path / "i3d_rgb.npz").same
