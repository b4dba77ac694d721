from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arabesque.extractors import audio_spectrogram
from arabesque.extractors.audio_spectrogram import AST
from arabesque.extractors.audio_spectrogram_network import (
    LAYOUTS,
    FittedEmbeddings,
    load_spectrogram_transformer,
)
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights, fill
from arabesque.extractors.kaldi_fbank import FilterbankOptions, kaldi_fbank
from arabesque.extractors.network import NetworkExtractor
from arabesque.extractors.protocol import SegmentInput
from arabesque.manifests.errors import WeightsError

CPU = torch.device("cpu")
MUSIC = Path(__file__).parents[1] / "golden" / "kaldi_fbank.npz"


@pytest.fixture(scope="module")
def music() -> Tensor:
    """1.28 s at 16 kHz."""
    with np.load(MUSIC) as arrays:
        return torch.from_numpy(arrays["wave_16k"])


def build(**settings: object) -> NetworkExtractor:
    resolved = AST.Settings.model_validate(settings)
    return AST(settings=resolved, weights={"network": RandomWeights(0)}, device=CPU, precision="float32")


def prepare(extractor: NetworkExtractor, waveform: Tensor) -> Tensor:
    return extractor.prepare(SegmentInput(index=0, start_s=0.0, end_s=1.28, waveform=waveform))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_spectrogram, "load_spectrogram_transformer", lambda *_: nn.Identity())


@pytest.mark.slow
def test_agrees_with_the_published_code(golden: Callable[[str], Any], save_checkpoint: Callable[..., Any]) -> None:
    """Inputs of short and of full length, i.e. with a part of the positional grid and all of it."""
    reference = golden("ast_audioset_10_10")
    network = load_spectrogram_transformer(save_checkpoint(reference.state_dict, "ast-original"), layer_norm_eps=1e-6)
    spectrogram = (0.5 * np.random.default_rng(150).standard_normal((1024, 128))).astype(np.float32)
    for name, expected in reference.arrays.items():
        frames = int(name.removeprefix("feature_"))
        with torch.inference_mode():
            feature = network(torch.from_numpy(spectrogram[None, :frames])).pooler_output.numpy()
        assert np.abs(feature - expected).max() / np.abs(expected).max() <= 1e-4, name
    assert set(reference.arrays) == {"feature_41", "feature_84", "feature_126", "feature_1024"}


@pytest.mark.parametrize(("columns", "first"), [(1, 50), (2, 49), (3, 49), (12, 44), (100, 0)])
def test_a_shorter_input_takes_the_middle_columns_of_the_grid(columns: int, first: int) -> None:
    rows, places = tokens_of_grid(columns)
    assert torch.equal(rows, torch.arange(12.0).repeat_interleave(columns))
    assert torch.equal(places, torch.arange(float(first), first + columns).repeat(12))


def test_the_trained_length_takes_the_grid_as_it_is_and_a_longer_input_stretches_it() -> None:
    rows, places = tokens_of_grid(101)
    assert torch.equal(rows, torch.arange(12.0).repeat_interleave(101))
    assert torch.equal(places, torch.arange(101.0).repeat(12))
    rows, places = tokens_of_grid(202)
    assert torch.equal(rows, torch.arange(12.0).repeat_interleave(202))
    expected = ((torch.arange(202) + 0.5) / 2 - 0.5).clamp(0, 100)
    assert torch.allclose(places[:202], expected, atol=1e-4)


def tokens_of_grid(columns: int) -> tuple[Tensor, Tensor]:
    """Row and column in the trained grid of the positions that an input gets; special tokens are checked on the way."""
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(101.0), indexing="ij"), dim=-1).reshape(1, -1, 2)
    special = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]])
    embeddings = SimpleNamespace(
        cls_token=torch.full((1, 1, 2), 10.0),
        distillation_token=torch.full((1, 1, 2), 20.0),
        position_embeddings=torch.cat([special, grid], dim=1),
        patch_embeddings=lambda x: torch.zeros(len(x), 12 * columns, 2),
    )
    with torch.inference_mode():
        tokens = FittedEmbeddings(embeddings)(torch.zeros(1, 16 + 10 * (columns - 1), 128))[0]
    assert tokens[:2].tolist() == [[9.0, 8.0], [17.0, 16.0]]
    return tokens[2:, 0], tokens[2:, 1]


@pytest.mark.usefixtures("no_network")
def test_the_default_front_end_is_the_authors(music: Tensor) -> None:
    """Filterbank, zeros up to 1024 frames, then normalization: padding becomes −mean / (2 · std)."""
    prepared = prepare(build(), music)
    energies = torch.from_numpy(kaldi_fbank(music.numpy(), FilterbankOptions(16000)))
    assert prepared.shape == (1024, 128)
    assert prepared.dtype == torch.float32
    assert torch.allclose(prepared[:126], (energies + 4.2677393) / (2 * 4.5689974), atol=1e-6)
    assert torch.allclose(prepared[126:], torch.tensor(4.2677393 / (2 * 4.5689974)))


@pytest.mark.usefixtures("no_network")
def test_pamfns_front_end(music: Tensor) -> None:
    """Filterbank at 48 kHz, wrong sign of the mean, padding after normalization (docs/provenance.md, PAMFN)."""
    settings = {"told_rate_hz": 48000, "mean": 4.26, "std": 4.57, "padding": "after-normalization", "input_frames": 84}
    prepared = prepare(build(**settings), music)
    energies = torch.from_numpy(kaldi_fbank(music.numpy(), FilterbankOptions(48000)))
    assert prepared.shape == (84, 128)
    assert torch.allclose(prepared[:41], (energies - 4.26) / (2 * 4.57), atol=1e-6)
    assert (prepared[41:] == 0).all()


@pytest.mark.usefixtures("no_network")
def test_input_frames_limit_the_length_or_are_all_frames(music: Tensor) -> None:
    everything = prepare(build(input_frames="all"), music)
    assert everything.shape == (126, 128)
    assert torch.equal(prepare(build(input_frames=100), music), everything[:100])
    assert prepare(build(input_frames="all"), music[:1]).shape == (16, 128)


def test_refuses_an_input_shorter_than_a_patch() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 16"):
        AST.Settings.model_validate({"input_frames": 15})


def test_rows_do_not_depend_on_the_batch_and_keep_their_order(music: Tensor) -> None:
    extractor = build(input_frames="all")
    items = [prepare(extractor, wave) for wave in (music, music.flip(0), music[:8000])]
    together = extractor.forward(items)
    assert [row.shape for row in together if row is not None] == [(768,)] * 3
    for item, row in zip(items, together, strict=True):
        [alone] = extractor.forward([item])
        assert alone is not None
        assert row is not None
        assert torch.allclose(alone, row, rtol=0, atol=1e-5)
    first, second, third = together
    assert first is not None
    assert second is not None
    assert third is not None
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(first, third, atol=1e-3)


@pytest.fixture
def small_network() -> nn.Module:
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(hidden_size=24, num_attention_heads=2, num_hidden_layers=12, intermediate_size=8)
    network: Any = ASTModel(config)
    for value in network.state_dict().values():
        value.normal_()
    return network


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_fills_the_same_network(layout: str, small_network: nn.Module) -> None:
    expected = small_network.state_dict()
    ours = LAYOUTS[layout](published(expected, layout))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loading_is_strict(layout: str, small_network: nn.Module) -> None:
    theirs = published(small_network.state_dict(), layout)
    del theirs[next(name for name in theirs if name.endswith("cls_token"))]
    theirs["module.v.more" if layout == "ast-original" else "audio_spectrogram_transformer.more"] = torch.ones(1)
    file = CheckpointFile("altered", Path("altered.pth"), "0" * 64, layout)
    with pytest.raises(WeightsError, match=r"1 missing \(embeddings\.cls_token\); 1 unexpected \(more\)"):
        fill(small_network, LAYOUTS[layout](theirs), file)


def published(ours: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Return our state dict under the names of a published layout, with the classifiers of that layout."""
    head = torch.zeros(1)
    if layout == "ast-transformers5":
        named = {f"audio_spectrogram_transformer.{name}": value for name, value in ours.items()}
        return named | {"classifier.dense.weight": head}
    if layout == "ast-transformers4":
        named = {f"audio_spectrogram_transformer.{transformers4_name(name)}": value for name, value in ours.items()}
        return named | {"classifier.layernorm.weight": head}
    named = {f"module.v.{name}": value for name, value in original(ours).items()}
    return named | {"module.mlp_head.1.weight": head, "module.v.head.bias": head, "module.v.head_dist.bias": head}


def transformers4_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] != "layers":
        return name
    inner = {
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    module = ".".join(parts[2:-1])
    return f"encoder.layer.{parts[1]}.{inner.get(module, module)}.{parts[-1]}"


def original(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    theirs = {
        "cls_token": ours["embeddings.cls_token"],
        "dist_token": ours["embeddings.distillation_token"],
        "pos_embed": ours["embeddings.position_embeddings"],
    }
    for kind in ("weight", "bias"):
        theirs[f"patch_embed.proj.{kind}"] = ours[f"embeddings.patch_embeddings.projection.{kind}"]
        theirs[f"norm.{kind}"] = ours[f"layernorm.{kind}"]
        for index in range(12):
            source, target = f"layers.{index}", f"blocks.{index}"
            theirs[f"{target}.norm1.{kind}"] = ours[f"{source}.layernorm_before.{kind}"]
            theirs[f"{target}.norm2.{kind}"] = ours[f"{source}.layernorm_after.{kind}"]
            theirs[f"{target}.attn.proj.{kind}"] = ours[f"{source}.attention.o_proj.{kind}"]
            theirs[f"{target}.attn.qkv.{kind}"] = torch.cat(
                [ours[f"{source}.attention.{part}_proj.{kind}"] for part in "qkv"]
            )
            for fc in ("fc1", "fc2"):
                theirs[f"{target}.mlp.{fc}.{kind}"] = ours[f"{source}.mlp.{fc}.{kind}"]
    return theirs


@pytest.mark.usefixtures("no_network")
def test_the_settings_define_the_audio_of_a_segment() -> None:
    need = build().audio
    assert (need.rate_hz, need.channel, need.resampler, need.windows, need.remove_mean) == (
        (16000, "mean", "soxr", "interval", False)
    )
    pamfns = build(channel="first", resampler="sinc-hann", windows="equal-split", remove_mean=True).audio
    assert (pamfns.channel, pamfns.resampler, pamfns.windows, pamfns.remove_mean) == (
        ("first", "sinc-hann", "equal-split", True)
    )


@pytest.mark.usefixtures("no_network")
def test_a_constant_in_the_waveform_reaches_no_feature(music: Tensor) -> None:
    """The scope of `AudioNeed.remove_mean` therefore does not matter; PAMFN subtracts the mean of the whole track."""
    shifted, plain = (prepare(build(input_frames="all"), wave) for wave in (music + 0.05, music))
    assert (shifted - plain).abs().max() < 1e-3
    assert not torch.equal(shifted, plain)
