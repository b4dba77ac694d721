"""`arabesque look`: a contact sheet of the inputs of streams."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from PIL import Image
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.extractors.protocol import PersonBoxes
from arabesque.reports.pictures import (
    CHOSEN,
    LEFT,
    OTHER,
    TRUNK,
    flow_picture,
    png_bytes,
    rows_of,
    spectrogram_picture,
    with_boxes,
    with_key_points,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Clip(num_frames=100, width_px=176, height_px=120, beeps_s=[0.5, 1.0, 1.5, 2.0, 2.5])
    return write_clip(tmp_path_factory.mktemp("look") / "<i>clip.mp4", made)


def look(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(commands, ["look", *map(str, arguments)])
    return result.exit_code, result.output + str(result.exception or "")


def test_a_picture_of_the_streams_without_networks(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    status, printed = look(clip, "--out", out, "--segments", 2)
    assert status == 0, printed
    assert "motion: 12 frames per second, 36 per segment every 18; 2 segments read, 2 drawn" in printed
    with Image.open(out) as picture:
        assert picture.width == 1500
        assert picture.height > 400
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_the_network_input_needs_no_checkpoint_of_the_network(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.html"
    options = ("--recipe", "pamfn", "--stream", "ast", "--segments", 1)
    status, printed = look(clip, "--out", out, *options)
    assert status == 0, printed
    page = out.read_text()
    assert "network input: 1024 × 128" in page
    assert "<i>clip" not in page
    assert "&lt;i&gt;clip.mp4" in page
    assert page.count("<img") == 2
    assert "http" not in page.replace("http-equiv", "")


def test_wrong_arguments_are_named(clip: Path, tmp_path: Path) -> None:
    for arguments, complaint in (
        ((tmp_path,), "is a folder; name one video"),
        ((tmp_path / "absent.mp4",), "does not exist"),
        ((clip, "--out", tmp_path / "sheet.pdf"), "ends with neither .png nor .html"),
        ((clip, "--out", tmp_path / "absent" / "sheet.png"), "existing folder"),
        ((clip, "--stream", "vst"), "has no stream 'vst'"),
        ((clip, "--segments", "0"), "--segments"),
    ):
        status, printed = look(*arguments)
        assert status != 0
        assert complaint.replace(" ", "") in "".join(printed.replace("│", "").split()), printed


def test_flow_is_drawn_by_direction_and_length() -> None:
    flow = np.zeros((2, 3, 4), np.float32)
    flow[0, 0], flow[0, 1] = 2, -2
    picture = flow_picture(flow, largest=2)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[1, 0].tolist() == [0, 255, 255]
    assert picture[2, 0].tolist() == [255, 255, 255]


def test_a_spectrogram_has_time_to_the_right_and_low_frequencies_below() -> None:
    levels = np.zeros((10, 8))
    levels[5:, 0] = 1
    picture = spectrogram_picture(levels, (8, 10)).sum(axis=2)
    assert picture[-1, 7] > picture[-1, 2]
    assert picture[0, 7] == picture[0, 2]


def test_boxes_are_drawn_at_any_size_with_the_athlete_on_top() -> None:
    edges = np.array([[100, 100, 300, 300], [90, 90, 400, 400], [0, 0, 10, 10]], np.float32)
    boxes = PersonBoxes(
        np.array([1.0, 1.0, 2.0]),
        edges,
        np.array([0.9, 0.5, 0.5], np.float32),
        np.array([0, 1, 1], np.int32),
        np.array([True, False, False]),
        480,
        640,
    )
    picture = with_boxes(np.zeros((240, 320, 3), np.uint8), boxes, 1.0)
    assert tuple(picture[100, 50]) == CHOSEN
    assert tuple(picture[199, 120]) == OTHER
    assert not picture[:5, :5].any()


def test_key_points_are_drawn_where_they_lie() -> None:
    row = np.zeros((17, 3), np.float32)
    row[:, :2] = (-0.3, -0.4)
    row[0, :2], row[5:7, :2], row[11:13, :2], row[[13, 15], :2] = (0, -0.45), (0, -0.4), (0, 0.1), (0.3, 0.1)
    picture = with_key_points(np.zeros((200, 300, 3), np.uint8), row)
    assert tuple(picture[60, 150]) == TRUNK
    assert tuple(picture[120, 180]) == LEFT
    assert not picture[150:].any()


def test_wide_pictures_fit_the_sheet() -> None:
    wide, small = np.full((10, 500, 3), 255, np.uint8), np.zeros((20, 30, 3), np.uint8)
    sheet = rows_of([wide, small, small], 100)
    assert sheet.shape[1] == 100
    with Image.open(io.BytesIO(png_bytes(sheet))) as picture:
        assert picture.size == (100, sheet.shape[0])
