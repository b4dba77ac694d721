"""Outputs of our networks with published weights layouts, compared with those of the published code (golden files)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded_networks import golden_arrays, golden_state_dict
from torch import Tensor

from arabesque.manifests.errors import InputError, WeightsError
from arabesque.models.gdlt import hard_triplet
from arabesque.models.pamfn import Pamfn
from arabesque.models.published_checkpoints import (
    load_action_net,
    load_gdlt,
    load_pamfn,
    load_pamfn_branch,
    load_published,
)
from arabesque.models.scoring import SegmentBatch

Save = Callable[[object], Path]
TOLERANCE = 1e-5  # absolute, for seeded weights in float32


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: object) -> Path:
        torch.save(content, tmp_path / "published.pth")
        return tmp_path / "published.pth"

    return write


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.abs(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32))


def whole(**features: Tensor) -> SegmentBatch:
    masks = {stream: torch.ones(values.shape[:2], dtype=torch.bool) for stream, values in features.items()}
    return SegmentBatch(features, masks)


def agree(ours: Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=TOLERANCE, rtol=0)


def test_action_net(save: Save) -> None:
    wanted = golden_arrays("action_net")
    adjacency = {"adj1": torch.from_numpy(wanted["adj_26"]), "adj2": torch.from_numpy(wanted["adj_80"])}
    network = load_action_net(save({**golden_state_dict("action_net"), **adjacency}), ["i3d_rgb", "resnet_crop"])
    batch = whole(i3d_rgb=drawn(110, 4, 26, 1024), resnet_crop=drawn(111, 4, 80, 2048))
    agree(network(batch).score, wanted["score"])
    for stream, theirs in (("i3d_rgb", wanted["dynamic"]), ("resnet_crop", wanted["static"])):
        agree(network.streams[stream](batch.features[stream], batch.masks[stream])[0], theirs)


@pytest.mark.parametrize("released", [True, False])
def test_gdlt(save: Save, released: bool) -> None:
    wanted = golden_arrays("gdlt")
    network = load_gdlt(save({"state_dict": golden_state_dict("gdlt")}), "vst", released=released)
    batch = whole(vst=drawn(130, 4, 68, 1024))
    prediction, responses = network(batch), network.grade_responses(batch)
    agree(prediction.score, wanted["score"])
    agree(responses, wanted["queries"])
    squared = torch.nn.functional.mse_loss(prediction.score, torch.tensor([0.2, 0.4, 0.6, 0.8]))
    agree(
        torch.stack([squared + prediction.penalty, squared, hard_triplet(responses, 1.0)]), wanted["loss_mse_triplet"]
    )


@pytest.mark.parametrize(
    ("configuration", "released"),
    [
        ("rg-feats1", True),
        ("rg-feats2", False),
        ("fisv-feats1", False),
        ("fisv-feats2", True),
        pytest.param("rg-feats1", False, marks=pytest.mark.slow),
        pytest.param("rg-feats2", True, marks=pytest.mark.slow),
        pytest.param("fisv-feats1", True, marks=pytest.mark.slow),
        pytest.param("fisv-feats2", False, marks=pytest.mark.slow),
    ],
)
def test_pamfn(save: Save, configuration: str, released: bool) -> None:
    name = f"pamfn_{configuration.replace('-', '_')}"
    wanted = golden_arrays(name)
    path = save({**golden_state_dict(name), "c": torch.zeros(768), "tau": torch.tensor(10.0)})
    if released:
        published = load_published(path)  # finds the model and its configuration by the tensors
        assert (published.model, published.streams) == ("pamfn", ("vst", "i3d_flow", "ast"))
        network = published.network
        assert isinstance(network, Pamfn)
    else:
        network = load_pamfn(path, ["vst", "i3d_flow", "ast"], configuration)
    segments = 70 if configuration.startswith("rg") else 130
    batch = whole(
        vst=drawn(120, 2, segments, 1024), i3d_flow=drawn(121, 2, segments, 1024), ast=drawn(122, 2, segments, 768)
    )
    with torch.inference_mode():
        score, decisions = network.fuse(batch)
        agree(score, wanted["score"][:, 0])
        for number, decision in enumerate(decisions, start=1):
            assert np.array_equal(decision.numpy(), wanted[f"decision_{number}"])
        for stream, letter in (("vst", "V"), ("i3d_flow", "F"), ("ast", "A")):
            branch_score, _ = network.branches[stream](batch.features[stream], batch.masks[stream])
            agree(branch_score, wanted[f"branch_{letter}"][:, 0])


def test_the_published_size_of_pamfn() -> None:
    """18.06 M in the paper: configuration rg-feats2 including its initial state `c`."""
    state = golden_state_dict("pamfn_rg_feats2")
    counters = ("running_mean", "running_var", "num_batches_tracked")
    trained = sum(value.numel() for name, value in state.items() if not name.endswith(counters))
    assert trained + 768 + 1 == 18_058_573


def branch_state() -> dict[str, Tensor]:
    state = golden_state_dict("pamfn_rg_feats1")
    return {name.removeprefix("model_a."): value for name, value in state.items() if name.startswith("model_a.")}


def test_a_branch_from_a_data_parallel_state_dict(save: Save) -> None:
    network = load_pamfn_branch(save({f"module.{name}": value for name, value in branch_state().items()}), "ast")
    agree(network(whole(ast=drawn(122, 2, 70, 768))).score, golden_arrays("pamfn_rg_feats1")["branch_A"][:, 0])


def test_a_checkpoint_of_another_network_is_rejected(save: Save) -> None:
    state = golden_state_dict("gdlt")
    state["extra"] = state.pop("regressor.bias")
    with pytest.raises(WeightsError, match=r"Gdlt: 1 missing \(regressor.bias\); 1 unexpected \(extra\)"):
        load_gdlt(save(state), "vst")
    state = golden_state_dict("gdlt")
    state["regressor.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"1 of another shape \(regressor.bias\)"):
        load_gdlt(save(state), "vst")
    with pytest.raises(WeightsError, match=r"the tensor d_ct\.embedding\.0\.weight is missing"):
        load_action_net(save(golden_state_dict("gdlt")), ["a", "b"])
    with pytest.raises(WeightsError, match="values that are not named tensors"):
        load_gdlt(save([1, 2]), "vst")


def test_a_checkpoint_of_its_authors_names_its_model(save: Save) -> None:
    path = save(branch_state())
    with pytest.raises(InputError, match="pamfn-branch reads 1 stream, not 0; name them with --streams"):
        load_published(path)
    found = load_published(path, ["rhythm"])
    assert (found.model, dict(found.dims)) == ("pamfn-branch", {"rhythm": 768})
    found = load_published(save(golden_state_dict("action_net")))
    assert (found.model, dict(found.dims)) == ("context-attention", {"i3d_rgb": 1024, "resnet_crop": 2048})
    with pytest.raises(WeightsError, match="not a checkpoint of ACTION-NET, GDLT or PAMFN"):
        load_published(save({"weight": torch.zeros(3)}))
