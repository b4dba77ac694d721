from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from arabesque.models.pamfn import Pamfn, PamfnSettings
from arabesque.models.pamfn_fusion import FusionSettings
from arabesque.models.pamfn_highlights import PamfnHighlights, highlight_loss
from arabesque.models.scoring import SegmentBatch

pytestmark = pytest.mark.usefixtures("narrow")
DIMS = {"vst": 12, "ast": 6}
SMALL = {"num_nets": 2, "ms_heads": 1, "cm_heads": 1, "feature_dropout": 0.0, "fc_dropout": 0.0}


def network() -> PamfnHighlights:
    torch.manual_seed(0)
    return PamfnHighlights(DIMS, FusionSettings(**SMALL))


def test_keys_are_those_of_pamfn() -> None:
    scorer = Pamfn(DIMS, PamfnSettings(**SMALL))
    network().load_state_dict(scorer.state_dict())


def test_segments_have_highlights_and_padding_has_zeros(random_batch: Callable[..., SegmentBatch]) -> None:
    batch = random_batch(DIMS, {stream: [7, 3, 1] for stream in DIMS})
    found, mask = network().eval().highlights(batch)
    assert mask.sum(1).tolist() == [7, 3, 1]
    assert not found[~mask].any()
    assert len(set(found[mask].tolist())) == 11
    prediction = network().eval()(batch)
    torch.testing.assert_close(prediction.score, found.sum(1) / mask.sum(1))
    torch.testing.assert_close(prediction.importance["ast"].sum(1), torch.ones(3))


def test_it_learns_labels_of_segments(random_batch: Callable[..., SegmentBatch]) -> None:
    def labeled(seed: int) -> tuple[SegmentBatch, torch.Tensor]:
        batch = random_batch(DIMS, {stream: [12, 10, 9, 11] for stream in DIMS}, seed=seed)
        wanted = torch.rand(batch.masks["vst"].shape, generator=torch.Generator().manual_seed(seed)) < 0.3
        batch.features["vst"][..., 0] += 4 * wanted * batch.masks["vst"]
        return batch, wanted.float()

    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(20):
        batch, wanted = labeled(step)
        found, mask = model.highlights(batch)
        optimizer.zero_grad()
        highlight_loss(found, wanted, mask).backward()
        optimizer.step()
    batch, wanted = labeled(1000)
    found, mask = model.eval().highlights(batch)
    lit, dark = found[mask & (wanted > 0)], found[mask & (wanted == 0)]
    assert (lit[:, None] > dark).float().mean() > 0.9  # the area under the ROC curve; 0.5 is chance
