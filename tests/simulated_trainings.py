"""Train, evaluate and score on the CPU and on a simulated accelerator, and print the largest differences as JSON.

python tests/simulated_trainings.py FOLDER NAME …
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from simulated_card import CARD, simulated_card
from small_trainings import make_run

from arabesque.models.checkpoints import load_checkpoint
from arabesque.models.dataset_training import experiment_for, train_on_dataset
from arabesque.models.evaluation import LabeledFeatures, evaluate
from arabesque.models.experiment import PartStage
from arabesque.models.features import FeatureSet
from arabesque.models.protocol import Protocol
from arabesque.models.released_features import read_features
from arabesque.models.video_scores import score_videos
from arabesque.pipeline.store.reader import FeatureStore

BRANCHES = PartStage(
    model="pamfn-branch",
    copy_from="branch",
    copy_to="branches.{stream}",
    protocol=Protocol(epochs=1, batch_size=8),
)
TRAININGS: dict[str, dict[str, Any]] = {
    "standardized": {"standardize": True, "clip_norm": 1.0, "crop": 5},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.01, "selection": "validation"},
    "bfloat16": {"precision": "bfloat16", "epochs": 1},
    "gdlt": {"model": "gdlt", "settings": {"hidden_dim": 8}, "streams": ("vst",)},
    "pamfn in two stages": {
        "model": "pamfn",
        "settings": {"num_nets": 2, "ms_heads": 1, "cm_heads": 1},
        "epochs": 1,
        "before": (BRANCHES,),
        "stage": {"frozen": ("branches.vst",)},
    },
    "pooled-svr": {"model": "pooled-svr", "settings": {}},
    "joint-va": {"model": "joint-va", "settings": {"hidden_dim": 8}, "epochs": 1},
    "msaf": {"model": "msaf", "settings": {}, "epochs": 1},
    "umt": {"model": "umt", "settings": {"hidden_dim": 8}, "epochs": 1},
    "late-fusion": {"model": "late-fusion", "settings": {"combination": "attention"}, "epochs": 1},
}
"""Names and options of `make_run`. LSTMs are missing: PyTorch's fused cell has no CPU version to simulate it with."""


def difference(name: str) -> float:
    """Return the largest difference between the predictions of both devices, in points."""
    entered: list[str] = []
    autocast = torch.autocast

    def recorded(device_type: str, *args: Any, **kwargs: Any) -> torch.autocast:
        entered.append(device_type)
        return autocast(device_type, *args, **kwargs)

    on_cpu = make_run(None, **TRAININGS[name]).result().test
    with simulated_card(), mock.patch.object(torch, "autocast", recorded):
        trainer = make_run(None, device="card", **TRAININGS[name])
        assert trainer.data.samples.device == CARD
        network, result = trainer.fit()
        for key, value in network.state_dict().items():
            assert value.device == CARD, f"{key} is on {value.device}"
    assert set(entered) <= {"card"}, entered
    return max(abs(result.test[video] - score) for video, score in on_cpu.items()) if name != "bfloat16" else 0.0


def commands(folder: Path) -> float:
    """Train on a data set, evaluate and score on both devices; return the largest difference in points."""
    rng = np.random.default_rng(0)
    skill = rng.random(20)
    arrays = {f"v{n:02d}": (skill[n] + 0.2 * rng.standard_normal((5, 4))).astype(np.float32) for n in range(20)}
    np.savez(folder / "vst.npz", **arrays)
    (folder / "scores.csv").write_text("id,score\n" + "".join(f"v{n:02d},{skill[n]:.3f}\n" for n in range(20)))
    given = (folder / "vst.npz", folder / "scores.csv")
    experiment = experiment_for(
        "csv", "context-attention", "score", streams=("vst",), settings={"hidden_dim": 4}, epochs=2
    )
    found: list[list[float]] = []
    for device in ("cpu", "card"):
        out = folder / device
        with simulated_card():
            train_on_dataset(*given, "csv", None, experiment, (0,), out, device=device)
            evaluation = evaluate(out / "seed-0", LabeledFeatures(*given, device=device))
            network, card = load_checkpoint(out / "seed-0")
            features: FeatureSet = read_features(given[0], ("vst",)).on(device)
            times = mock.MagicMock(start_s=np.arange(5.0), end_s=np.arange(1.0, 6.0))
            times.__len__.return_value = 5
            store = mock.Mock(spec=FeatureStore, **{"read.return_value": times, "holds.return_value": True})
            scored = score_videos(network.to(device), card, features, store, ["v00"])
        found.append([score for _, score in evaluation.scores.values()] + [scored[0].score])
        found[-1] += [segment.effect or 0.0 for segment in scored[0].segments]
    on_cpu, on_card = found
    return float(np.abs(np.subtract(on_cpu, on_card)).max())


def main() -> None:
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    differences = {name: commands(Path(folder)) if name == "commands" else difference(name) for name in names}
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
