from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from arabesque.manifests.errors import StoreError, WeightsError
from arabesque.models.checkpoints import ModelCard, load_checkpoint, new_network, put_whole, save_checkpoint, to_json
from arabesque.models.protocol import Protocol

CARD = ModelCard(
    model="lstm",
    settings={"hidden_dim": 4, "num_layers": 1, "dropout": 0.5},
    dims={"vst": 3},
    streams={"vst": {"settings_digest": "0" * 32}},
    target="score",
    score_range=(0, 25),
    protocol=Protocol(epochs=1, standardise=True),
    seed=0,
    trained_on=("a", "b"),
    made_with={"torch": "2"},
)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    network = new_network(CARD)
    save_checkpoint(tmp_path, network, CARD)
    again, card = load_checkpoint(tmp_path)
    assert card == CARD
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_file_of_weights_names_its_folder_and_the_folder_above_is_told_where_models_are(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "seed-0", new_network(CARD), CARD)
    assert load_checkpoint(tmp_path / "seed-0" / "model.pt")[1] == CARD
    with pytest.raises(WeightsError, match=r"not a trained model .*did you mean .*/seed-0\?"):
        load_checkpoint(tmp_path)


def test_what_does_not_belong_together_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not a trained model .*name a folder that train wrote"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, new_network(CARD), CARD.model_copy(update={"dims": {"vst": 5}}))
    with pytest.raises(WeightsError, match=r"model\.pt: does not fit model\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.json").write_text(CARD.model_dump_json().replace('"format":2', '"format":1'))
    with pytest.raises(WeightsError, match=r"model\.json: format: .*of another version of arabesque, train the model"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, new_network(CARD), CARD)
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="not a trained model"):
        load_checkpoint(tmp_path)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    put_whole(tmp_path / "a" / "file", b"first")
    put_whole(tmp_path / "a" / "file", b"second")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "a").iterdir()] == [("file", b"second")]
    with pytest.raises(StoreError, match="cannot be written"):
        put_whole(tmp_path / "a" / "file" / "below", b"x")


def test_undefined_numbers_are_null() -> None:
    text = to_json({"a": math.nan, "b": (1.5, [math.nan]), "c": {"d": 2}})
    assert json.loads(text) == {"a": None, "b": [1.5, [None]], "c": {"d": 2}}
