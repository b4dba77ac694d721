from __future__ import annotations

import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from seeded_networks import sha256_of
from torch import nn

from arabesque.extractors.checkpoints import (
    CheckpointFile,
    Layouts,
    RandomWeights,
    StateDict,
    fill,
    load_network,
    read_state_dict,
    renamed,
    unchanged,
)
from arabesque.manifests.errors import WeightsError

SaveCheckpoint = Callable[..., CheckpointFile]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


def state_dict() -> StateDict:
    torch.manual_seed(1)
    return Network().state_dict()


OURS: Layouts = {"ours": unchanged}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_of_state_dicts_are_removed(save_checkpoint: SaveCheckpoint, wrapper: str | None) -> None:
    wanted = state_dict()
    file = save_checkpoint({wrapper: wanted, "epoch": 30} if wrapper else OrderedDict(wanted), "ours")
    found = read_state_dict(file)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    wanted = state_dict()
    path = tmp_path / "model.safetensors"
    save_file(wanted, path)
    file = CheckpointFile("net", path, sha256_of(path), "ours")
    found = read_state_dict(file)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"model\.safetensors: checkpoint net is not a plain state dict"):
        read_state_dict(CheckpointFile("net", path, sha256_of(path), "ours"))


def test_half_precision_is_widened_and_counters_are_not(save_checkpoint: SaveCheckpoint) -> None:
    found = read_state_dict(save_checkpoint({"w": torch.ones(2).half(), "n": torch.tensor(5)}, "ours"))
    assert found["w"].dtype == torch.float32
    assert found["n"].dtype == torch.int64


class _Bomb:
    """Its pickle calls ``Path.touch`` when opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_unopened(save_checkpoint: SaveCheckpoint, tmp_path: Path) -> None:
    fuse = tmp_path / "ran"
    with pytest.raises(WeightsError, match=r"seeded-0\.pth: checkpoint seeded is not a plain state dict"):
        read_state_dict(save_checkpoint({"w": _Bomb(fuse)}, "ours"))
    assert not fuse.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00(K\x02t(K\x01t\x89)tR.",  # of a number for a storage
        b"ctorch\nSize\n(K\x01K\x02tR.",  # of two sizes
        b"PX\n.",  # a storage by a text
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0atQ.",  # not there
    ],
)
def test_forged_pickles_are_reported_with_their_name(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "forged.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(WeightsError, match=r"forged\.pth: checkpoint swin is not a plain state dict"):
        read_state_dict(CheckpointFile("swin", path, sha256_of(path), "ours"))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps([1, 2], protocol=2)])
def test_files_in_another_format_are_reported_with_their_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "download.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"download\.pth: checkpoint swin .*\(.+\)"):
        read_state_dict(CheckpointFile("swin", path, sha256_of(path), "ours"))


def test_a_missing_file_is_reported_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth: .*No such file"):
        read_state_dict(CheckpointFile("swin", tmp_path / "gone.pth", "0" * 64, "ours"))


def test_a_truncated_file_is_reported_with_its_name(save_checkpoint: SaveCheckpoint) -> None:
    file = save_checkpoint(state_dict(), "ours")
    file.path.write_bytes(file.path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="fetch it again"):
        read_state_dict(replace(file, digest=sha256_of(file.path)))


def test_bytes_that_changed_since_they_were_verified_are_not_parsed(save_checkpoint: SaveCheckpoint) -> None:
    file = save_checkpoint(state_dict(), "ours")
    whole = file.path.read_bytes()
    chance = random.Random(0)
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        file.path.write_bytes(damaged)
        with pytest.raises(
            WeightsError, match=rf"has changed since it was verified: expected sha256 {file.digest}, got"
        ):
            read_state_dict(file)


@pytest.mark.parametrize("content", [{}, {"w": 3.0}, [torch.ones(1)], torch.ones(1)])
def test_other_content_is_refused(save_checkpoint: SaveCheckpoint, content: object) -> None:
    with pytest.raises(WeightsError, match="values that are not named tensors"):
        read_state_dict(save_checkpoint(content, "ours"))


def test_the_report_counts_tensors_that_do_not_fit(save_checkpoint: SaveCheckpoint) -> None:
    altered = state_dict()
    del altered["linear.bias"]
    altered["linear.weight"] = torch.ones(5, 5)
    altered["head.weight"] = torch.ones(1)
    with pytest.raises(WeightsError) as caught:
        fill(Network(), altered, save_checkpoint({}, "odd-layout"))
    message = str(caught.value)
    assert "layout odd-layout" in message
    assert "1 missing (linear.bias)" in message
    assert "1 unexpected (head.weight)" in message
    assert "1 of another shape (linear.weight is [5, 5], not [2, 3])" in message


def test_counters_may_be_absent_from_old_files(save_checkpoint: SaveCheckpoint) -> None:
    old = state_dict()
    del old["norm.num_batches_tracked"]
    filled = load_network(Network, save_checkpoint(old, "ours"), OURS)
    assert torch.equal(filled.linear.weight, old["linear.weight"])
    assert filled.state_dict()["norm.num_batches_tracked"] == 0
    with pytest.raises(WeightsError, match="unexpected"):
        fill(Network(), old | {"9.num_batches_tracked": torch.tensor(0)}, save_checkpoint({}, "ours"))


def test_layouts_are_renamed_when_a_file_is_loaded(save_checkpoint: SaveCheckpoint) -> None:
    theirs = {f"module.{name}": value for name, value in state_dict().items()}
    layouts = {**OURS, "data-parallel": partial(renamed, patterns=[(r"^module\.", "")])}
    filled = load_network(Network, save_checkpoint(theirs, "data-parallel"), layouts)
    assert torch.equal(filled.linear.weight, theirs["module.linear.weight"])


def test_networks_are_loaded_frozen(save_checkpoint: SaveCheckpoint) -> None:
    for weights in (RandomWeights(0), save_checkpoint(state_dict(), "ours")):
        loaded = load_network(Network, weights, OURS)
        assert not any(module.training for module in loaded.modules())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_seeds_determine_weights_and_the_global_generator_is_unchanged() -> None:
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (load_network(Network, RandomWeights(seed), OURS) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected_draw)
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)
    assert RandomWeights(3).digest == "random:3"
