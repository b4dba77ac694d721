from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from arabesque.manifests.errors import StoreError, WeightsError
from arabesque.models.checkpoints import (
    ModelCard,
    load_checkpoint,
    new_network,
    save_checkpoint,
    write_atomically,
)
from arabesque.models.protocol import Protocol

CARD = ModelCard(
    model="lstm",
    settings={"hidden_dim": 4, "num_layers": 1, "dropout": 0.5},
    dims={"vst": 3},
    streams={"vst": {"settings_digest": "0" * 32}},
    target="score",
    score_range=(0, 25),
    protocol=Protocol(epochs=1, standardize=True),
    seed=0,
    trained_on=("a", "b"),
    made_with={"torch": "2"},
)


def test_a_saved_model_loads_unchanged(tmp_path: Path) -> None:
    network = new_network(CARD)
    save_checkpoint(tmp_path, network, CARD)
    again, card = load_checkpoint(tmp_path)
    assert card == CARD
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_weights_file_is_accepted_and_the_parent_folder_gets_a_suggestion(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "seed-0", new_network(CARD), CARD)
    assert load_checkpoint(tmp_path / "seed-0" / "model.pt")[1] == CARD
    with pytest.raises(WeightsError, match=r"not a trained model .*did you mean .*/seed-0\?"):
        load_checkpoint(tmp_path)


def test_mismatched_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not a trained model .*name a folder that train wrote"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, new_network(CARD), CARD.model_copy(update={"dims": {"vst": 5}}))
    with pytest.raises(WeightsError, match=r"model\.pt: does not fit model\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.json").write_text(CARD.model_dump_json().replace('"format":3', '"format":1'))
    with pytest.raises(
        WeightsError, match=r"model\.json: format: .*it is of another version of arabesque; train the model"
    ):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, new_network(CARD), CARD)
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="not a trained model"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.json"])
def test_a_flipped_bit_is_detected(tmp_path: Path, name: str) -> None:
    network = new_network(CARD)
    save_checkpoint(tmp_path, network, CARD)
    whole = (tmp_path / name).read_bytes()
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        try:
            again, card = load_checkpoint(tmp_path)
        except WeightsError:
            continue
        # one whitespace character became another: the content is equal
        assert name == "model.json"
        assert card == CARD
        assert all(torch.equal(again.state_dict()[key], value) for key, value in network.state_dict().items())


def test_files_of_two_trainings_are_rejected(tmp_path: Path) -> None:
    for seed in (0, 1):
        card = CARD.model_copy(update={"seed": seed})
        save_checkpoint(tmp_path / f"seed-{seed}", new_network(card), card)
    weights = (tmp_path / "seed-0" / "model.pt").read_bytes()
    (tmp_path / "seed-1" / "model.pt").write_bytes(weights)
    with pytest.raises(
        WeightsError, match=r"seed-1: not a trained model \(model\.pt is damaged or of another training"
    ):
        load_checkpoint(tmp_path / "seed-1")


def test_a_model_without_digests_loads_with_a_warning(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, new_network(CARD), CARD)
    old = CARD.model_copy(update={"format": 2})
    (tmp_path / "model.json").write_text(old.model_dump_json(indent=2))
    _, card = load_checkpoint(tmp_path)
    assert "model.json has no digests (an older version wrote it)" in card.unverified
    without = json.loads(CARD.model_dump_json())
    (tmp_path / "model.json").write_text(json.dumps(without))
    with pytest.raises(WeightsError, match="does not have the digest at its end"):
        load_checkpoint(tmp_path)


def test_files_are_written_atomically(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "file", b"first")
    write_atomically(tmp_path / "a" / "file", b"second")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "a").iterdir()] == [("file", b"second")]
    with pytest.raises(StoreError, match="cannot be written"):
        write_atomically(tmp_path / "a" / "file" / "below", b"x")
