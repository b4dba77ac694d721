"""One folder of drawn clips, their features and a model, in which the examples of docstrings run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clips import Clip, write_clip

import arabesque
from arabesque.models.checkpoints import ModelCard, new_network, save_checkpoint
from arabesque.models.table import resolve_settings
from arabesque.models.training import SMALL_MODEL, SMALL_PROTOCOL, SMALL_SETTINGS
from arabesque.pipeline.store.reader import FeatureStore


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``routine.mp4``, ``damaged.mp4``, ``videos/`` with two clips of 3 s, their ``features/``, and ``model/``."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "videos").mkdir()
    for name, beeps_s in (("routine", (0.5, 1.5, 2.5)), ("another", (0.3, 1.1))):
        write_clip(folder / "videos" / f"{name}.mp4", Clip(num_frames=75, beeps_s=beeps_s))
    (folder / "routine.mp4").write_bytes((folder / "videos" / "routine.mp4").read_bytes())
    (folder / "damaged.mp4").write_bytes((folder / "videos" / "routine.mp4").read_bytes()[:3000])
    before = torch.get_num_threads()
    store = arabesque.extract(folder / "videos", recipe="starter", out=folder / "features")
    assert torch.get_num_threads() == before
    save_untrained(store, folder / "model")
    return folder


def save_untrained(store: FeatureStore, folder: Path) -> None:
    """Write a model with random weights that reads the streams of a store."""
    card = ModelCard(
        model=SMALL_MODEL,
        settings=resolve_settings(SMALL_MODEL, SMALL_SETTINGS),
        dims={name: store.manifest["streams"][name]["dim"] for name in store.streams},
        streams={name: store.manifest["streams"][name] for name in store.streams},
        target="score",
        score_range=(0, 10),
        protocol=SMALL_PROTOCOL.model_copy(update={"standardize": False}),
        seed=0,
        trained_on=(),
        made_with={"arabesque": arabesque.__version__},
        recipe=store.manifest["recipe"],
    )
    save_checkpoint(folder, new_network(card), card)
