"""PAMFN without decoders, with weighted fusion in their place, and with fusion in some stages (Tables VI and VIII)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arabesque.models.fusion_policy import NEVER
from arabesque.models.pamfn import Pamfn, PamfnSettings
from arabesque.models.pamfn_fusion import ModalitySpecificDecoder, weighted_sum
from arabesque.models.scoring import SegmentBatch

DIMS = {"a": 6, "b": 5, "c": 4}


def build(**settings: Any) -> Pamfn:
    torch.manual_seed(0)
    return Pamfn(DIMS, PamfnSettings(num_nets=3, ms_heads=1, cm_heads=1, fc_ratio=2, **settings)).eval()


def batch() -> SegmentBatch:
    generator = torch.Generator().manual_seed(1)
    features = {stream: torch.randn(2, 9, dim, generator=generator) for stream, dim in DIMS.items()}
    return SegmentBatch(features, {stream: torch.ones(2, 9, dtype=torch.bool) for stream in DIMS})


@pytest.mark.parametrize(
    ("settings", "widths"),
    [
        ({}, [768, 768, 768]),
        ({"cmfd": "none"}, [512, 512, 512]),
        ({"msfd": "none"}, [512, 512, 512]),
        ({"msfd": "weighted", "cmfd": "weighted"}, [768, 768, 768]),
        ({"fusion_stages": 1}, [768, 256, 256]),
        ({"fusion_stages": 2}, [768, 768, 256]),
    ],
)
def test_a_part_that_is_missing_has_no_parameters_and_no_channels(settings: dict[str, Any], widths: list[int]) -> None:
    network = build(**settings)
    stages = (network.stage1, network.stage2, network.stage3)
    assert [stage.width_out for stage in stages] == widths
    names = [name for name, _ in network.named_parameters()]
    fused = settings.get("fusion_stages", 3)
    for number in (1, 2, 3):
        has_msfd = number <= fused and settings.get("msfd") != "none"
        has_cmfd = number <= fused and settings.get("cmfd") != "none"
        assert any(name.startswith(f"stage{number}.s_fusion") for name in names) == has_msfd
        assert any(name.startswith(f"stage{number}.f_fusion") for name in names) == has_cmfd
    assert ("tau" in names) == (settings.get("cmfd") != "none")
    score, decisions = network.fuse(batch())
    assert score.shape == (2,)
    assert len(decisions) == (0 if settings.get("cmfd") == "none" else fused)


def test_weighted_fusion_weighs_choices_by_one_softmax() -> None:
    values = torch.randn(4, 3, 256)
    logits = torch.tensor([1.0, 0.0, -1.0])
    found, weights = weighted_sum(logits, values, None)
    expected = torch.softmax(logits, 0)
    torch.testing.assert_close(found, torch.einsum("c,ncd->nd", expected, values))
    torch.testing.assert_close(weights, expected.expand(4, 3))
    bias = torch.tensor([[0.0, NEVER, 0.0]]).expand(4, 3)
    found, _ = weighted_sum(logits, values, bias)
    pair = torch.softmax(logits[[0, 2]], 0)
    torch.testing.assert_close(found, torch.einsum("c,ncd->nd", pair, values[:, [0, 2]]))


def test_the_msfd_attends_to_the_least_similar_modality() -> None:
    """Equation 4: softmax(-Q Kᵀ / √d) V at each time step, with queries from the mixed features."""
    from arabesque.models.pamfn_fusion import Level

    torch.manual_seed(0)
    decoder: Any = ModalitySpecificDecoder(3, 1, "attention").eval()
    mixed = torch.randn(1, 256, 4)
    modalities = [torch.randn(1, 256, 4) for _ in range(3)]
    found, weights = decoder(mixed, Level(modalities, None))
    to_query, to_key, to_value = decoder.fusion_s.linear_layers
    projection = decoder.proj[0]
    for step in range(4):
        query = to_query(projection.weight[:, :, 0] @ mixed[0, :, step] + projection.bias)
        keys = torch.stack([to_key(each[0, :, step]) for each in modalities])
        values = torch.stack([to_value(each[0, :, step]) for each in modalities])
        expected = torch.softmax(-(keys @ query) / 16, 0)  # √256
        torch.testing.assert_close(weights[0, step], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[0, :, step], expected @ values, atol=1e-5, rtol=1e-4)


def test_a_prediction_has_the_values_that_figures_show() -> None:
    """Decisions and the weights of the modalities at each step of each stage (Figures 5, 7 and 8)."""
    prediction = build()(batch())
    shapes = {name: tuple(values.shape) for name, values in prediction.traces.items()}
    assert shapes == {
        **{f"decision_{number}": (2, length) for number, length in ((1, 4), (2, 2), (3, 1))},
        **{f"modalities_{number}": (2, length, 3) for number, length in ((1, 4), (2, 2), (3, 1))},
    }
    for number in (1, 2, 3):
        torch.testing.assert_close(
            prediction.traces[f"modalities_{number}"].sum(-1), torch.ones(2, (4, 2, 1)[number - 1])
        )
    assert "decision_2" not in build(fusion_stages=1)(batch()).traces
