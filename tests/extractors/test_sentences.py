"""Sentences through the text towers of CLIP-like networks: one row for each, and similarities as a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from network_rows import extractor_for, picture_frames, row_of
from small_checkpoints import FAMILIES, write_checkpoint, write_tokenizer
from torch.nn import functional
from typer.testing import CliRunner

import arabesque
from arabesque.cli.main import commands
from arabesque.extractors.hub_snapshot import find_checkpoint
from arabesque.manifests.errors import ConfigError

SENTENCES = ("a skater jumps", "a skater spins", "the gymnast throws the ball")
TOWERS = ("clip", "siglip", "metaclip_2", "aimv2", "tipsv2", "xclip", "videoprism")


def checkpoint_with_text(folder: Path, family: str) -> Path:
    return write_tokenizer(write_checkpoint(folder, family, seed=1))


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[] if name in ("clip", "siglip", "xclip") else pytest.mark.slow) for name in TOWERS],
)
def test_rows_and_similarities_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = checkpoint_with_text(tmp_path / family, family)
    network: Any = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        list(SENTENCES), padding="max_length", max_length=16, return_tensors="pt"
    )
    given = {"input_ids": tokens["input_ids"]}
    if family != "siglip":  # trained without a mask
        given["attention_mask"] = tokens["attention_mask"]
    with torch.inference_mode():
        found = network.get_text_features(**given)
    expected = found if isinstance(found, torch.Tensor) else found.pooler_output

    checkpoint, frames = find_checkpoint(str(folder)).with_digest(), FAMILIES[family].frames
    embedding: Any = extractor_for(f"transformers:{folder}", checkpoint, frames, sentences=SENTENCES)
    torch.testing.assert_close(embedding.sentence_rows, expected, rtol=1e-5, atol=1e-5)
    assert len({tuple(row) for row in expected.tolist()}) == 3

    similar: Any = extractor_for(f"transformers:{folder}", checkpoint, frames, sentences=SENTENCES, output="similarity")
    assert similar.dim == 3
    pictures = picture_frames(frames)
    cosines = functional.cosine_similarity(row_of(embedding, pictures)[None], expected)
    torch.testing.assert_close(row_of(similar, pictures), cosines, rtol=1e-4, atol=1e-5)


def test_the_text_tower_costs_no_memory_afterwards(tmp_path: Path) -> None:
    folder = checkpoint_with_text(tmp_path / "clip", "clip")
    checkpoint = find_checkpoint(str(folder)).with_digest()
    extractor: Any = extractor_for(f"transformers:{folder}", checkpoint, sentences=SENTENCES, output="similarity")
    names = [name for name, _ in extractor.runner._network.named_parameters()]
    assert names
    assert not [name for name in names if "text_model" in name]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"output": "similarity"}, r'output = "similarity" needs settings.sentences; give a list'),
        ({"sentences": [""]}, r"settings\.sentences\.0"),
        ({"sentences": ["a"] * 257}, r"settings\.sentences: .*256"),
        ({"sentences": ["a skater jumps"], "tokenizer_sha256": "0" * 64}, "the tokenizer is not the one of settings"),
        ({"sentences": [" ".join(["skater"] * 16)]}, r"has 17 tokens, but the text tower accepts 16; shorten it"),
    ],
)
def test_unusable_sentences_are_an_error_of_one_line(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    folder = checkpoint_with_text(tmp_path / "clip", "clip")
    with pytest.raises(ConfigError, match=complaint) as caught:
        extractor_for(f"transformers:{folder}", find_checkpoint(str(folder)).with_digest(), **settings)
    assert "\n" not in str(caught.value)


def test_checkpoints_without_text_tower_or_tokenizer(tmp_path: Path) -> None:
    alone = write_tokenizer(write_checkpoint(tmp_path / "dinov2", "dinov2", seed=1))
    with pytest.raises(ConfigError, match=r"has no known text tower; remove settings\.sentences"):
        extractor_for(f"transformers:{alone}", find_checkpoint(str(alone)).with_digest(), sentences=SENTENCES)
    mute = write_checkpoint(tmp_path / "clip", "clip", seed=1)
    with pytest.raises(ConfigError, match=r"has no tokenizer \(tokenizer\.json\)"):
        extractor_for(f"transformers:{mute}", find_checkpoint(str(mute)).with_digest(), sentences=SENTENCES)
    (mute / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match="its tokenizer cannot be used") as caught:
        extractor_for(f"transformers:{mute}", find_checkpoint(str(mute)).with_digest(), sentences=SENTENCES)
    assert "\n" not in str(caught.value)


RECIPE = """
name = "rubric"
summary = "Elements as sentences"
[sampling]
fps = 2
frames_per_segment = 2
frames_per_step = 2
remainder = "drop-tail"
[streams.clip]
extractor = "transformers:{folder}"
settings = {{ sentences = {sentences} }}
[streams.elements]
extractor = "transformers:{folder}"
settings = {{ sentences = {sentences}, output = "similarity" }}
"""


def test_a_store_has_the_sentences_and_their_rows(tmp_path: Path) -> None:
    folder = checkpoint_with_text(tmp_path / "clip", "clip")
    recipe = tmp_path / "rubric.toml"
    recipe.write_text(RECIPE.format(folder=folder, sentences=list(SENTENCES)))
    video = write_clip(tmp_path / "skater.mp4", Clip())
    out = tmp_path / "features"
    run = CliRunner().invoke(commands, ["extract", str(video), "--recipe", str(recipe), "--out", str(out), "-q"])
    assert run.exit_code == 0, run.output

    store = arabesque.FeatureStore(out)
    found = store.sentences("clip")
    assert found.sentences == SENTENCES
    assert found.values.shape == (3, 32)
    assert found.values.dtype == np.float32
    elements = store["skater"]["elements"].values
    assert elements.shape == (len(store["skater"]["clip"].values), 3)
    assert np.abs(elements).max() <= 1
    np.testing.assert_array_equal(store.sentences("elements").values, found.values)
    with pytest.raises(KeyError, match="no stream 'music'"):
        store.sentences("music")

    again = CliRunner().invoke(commands, ["extract", str(video), "--recipe", str(recipe), "--out", str(out), "-q"])
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(arabesque.FeatureStore(out).sentences("clip").values, found.values)

    file = tmp_path / "sentences.npz"
    command = ["export", str(out), "-o", str(tmp_path / "npy"), "--format", "npy-folder", "--sentences", str(file)]
    run = CliRunner().invoke(commands, command)
    assert run.exit_code == 0, run.output
    assert f"6 sentences: {file}" in run.output
    with np.load(file) as written:
        np.testing.assert_array_equal(written["clip"], found.values)
        assert tuple(written["elements.sentences"]) == SENTENCES
    again = CliRunner().invoke(commands, [*command, "--stream", "clip"])
    assert "already exists; --force overwrites it" in str(again.exception)
    run = CliRunner().invoke(commands, ["verify", str(out)])
    assert run.exit_code == 0, run.output
