from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from arabesque.models.pooled_statistics import part_means, pooled_statistics
from arabesque.models.scoring import SegmentBatch
from arabesque.models.table import build_model
from arabesque.models.video_kernels import SegmentKernels, StatisticsKernels


def videos(num: int = 6, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(num) + 9
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return torch.randn(*mask.shape, dim, generator=generator, dtype=torch.float64) * mask[..., None], mask


def test_parts_share_the_segments_on_their_borders() -> None:
    features, mask = torch.tensor([[[3.0], [6.0], [9.0], [0.0]]]), torch.tensor([[True, True, True, False]])
    assert part_means(features, mask, 2).flatten().tolist() == [4.0, 8.0]  # (3 + 6 / 2) / 1.5, (6 / 2 + 9) / 1.5
    assert part_means(features, mask, 1).flatten().tolist() == [6.0]
    found = pooled_statistics(features, mask)
    assert found[0, 8:].flatten().tolist() == pytest.approx([6**0.5, 3.0])  # deviation, step


def test_segment_kernels_are_their_formula() -> None:
    """With every segment as a landmark, only the windows are an approximation."""
    features, mask = videos()
    kernels = SegmentKernels(width=0.6, spans=(0.1,))
    gram = kernels.fit(features, mask)[kernels.names[0]]
    expected = np.zeros_like(gram)
    projected = [
        (video[present] - kernels.center) @ kernels.projection for video, present in zip(features, mask, strict=True)
    ]
    for i, x in enumerate(projected):
        for j, y in enumerate(projected):
            s, t = ((torch.arange(len(each)) + 0.5) / len(each) for each in (x, y))
            close = torch.exp(-((s[:, None] - t) ** 2) / 2 / 0.1**2)
            expected[i, j] = (torch.exp(-(torch.cdist(x, y) ** 2) / kernels.scale) * close).mean()
    norms = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(gram, expected / np.outer(norms, norms), atol=0.02)


def test_kernels_score_training_videos_as_their_gram_matrix_does() -> None:
    features, mask = videos()
    duals = np.random.default_rng(0).standard_normal(len(mask))
    for kernels in (SegmentKernels(spans=(0.1, 0.2)), StatisticsKernels()):
        grams = kernels.fit(features, mask)
        first, *_, last = grams
        kernels.keep({first: duals, last: 2 * duals})
        expected = grams[first] @ duals + 2 * grams[last] @ duals
        np.testing.assert_allclose(kernels.weighted(features, mask).numpy(), expected, atol=1e-8)


def test_a_missing_stream_counts_as_the_mean_of_the_others() -> None:
    """The score of a video without a stream is that of a video of mean similarity, and the other stream decides."""
    generator = torch.Generator().manual_seed(1)
    skill = torch.rand(40, generator=generator)
    mask = torch.ones(40, 10, dtype=torch.bool)
    noisy = {name: skill[:, None, None] + 0.3 * torch.randn(40, 10, 4, generator=generator) for name in ("a", "b")}
    batch = SegmentBatch(noisy, dict.fromkeys(noisy, mask))
    network: Any = build_model("kernel-regression", {"a": 4, "b": 4}, {}, seed=0)
    network.solve(batch, skill)
    none = torch.zeros_like(mask)
    without = [SegmentBatch(noisy, {"a": mask, "b": none}), SegmentBatch(noisy, {"a": none, "b": mask})]
    scores = [np.corrcoef(network(each).score, skill)[0, 1] for each in (batch, *without)]
    assert scores[0] > max(scores[1:]) > min(scores[1:]) > 0.5
    nothing = network(SegmentBatch(noisy, {"a": none, "b": none})).score
    assert nothing.std() < 1e-6
    assert abs(float(nothing[0] - skill.mean())) < 0.05
