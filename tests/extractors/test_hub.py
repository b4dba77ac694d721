"""Checkpoints of transformers by name: download, revision, resume and refusals, against a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repository, running_hub, use_hub
from small_checkpoints import write_checkpoint, write_tokenizer

from arabesque.extractors.hub_snapshot import find_checkpoint
from arabesque.extractors.table import extractor_kind, resolve
from arabesque.manifests.errors import ConfigError, WeightsError
from arabesque.manifests.streams import Sampling, StreamSpec

SAMPLING = Sampling(fps=1, frames_per_segment=1, frames_per_step=1, remainder="drop-tail")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        use_hub(monkeypatch, hub, tmp_path / "cache")
        yield hub


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(write_checkpoint(tmp_path_factory.mktemp("hub") / "clip", "clip", seed=1))


def published(hub: Hub, *folders: Path, name: str = "team/clip") -> list[str]:
    repository = hub.repositories.setdefault(name, Repository())
    return [repository.commit(folder) for folder in folders]


def test_a_checkpoint_is_downloaded_at_one_commit(hub: Hub, clip: Path, tmp_path: Path) -> None:
    [commit] = published(hub, clip)
    spec = resolve(StreamSpec(extractor="transformers:team/clip", sampling=SAMPLING))
    assert spec.extractor == f"transformers:team/clip@{commit}"
    assert spec.weights == {"network": spec.extractor}
    assert set(hub.files_fetched()) == {"config.json", "preprocessor_config.json"}  # no tensors before a run

    with pytest.raises(WeightsError, match=rf"`arabesque weights fetch transformers:team/clip@{commit}` downloads it"):
        find_checkpoint(f"team/clip@{commit}", offline=True).with_digest()
    found = find_checkpoint("team/clip", tensors=True).with_digest()
    assert found.name == f"team/clip@{commit}"
    assert found.digest == find_checkpoint(str(clip)).with_digest().digest
    assert (found.path / "tokenizer.json").exists()

    hub.down = True
    assert find_checkpoint(f"team/clip@{commit}", offline=True).with_digest() == found


def test_a_new_commit_does_not_change_a_pinned_one(hub: Hub, clip: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", "clip", seed=2)
    first, second = published(hub, clip, other, name="team/moving")
    newest = resolve(StreamSpec(extractor="transformers:team/moving", sampling=SAMPLING))
    assert newest.extractor.endswith(second)
    pinned = resolve(StreamSpec(extractor=f"transformers:team/moving@{first}", sampling=SAMPLING))
    assert pinned.extractor == f"transformers:team/moving@{first}"
    assert resolve(pinned) == pinned
    digests = {find_checkpoint(f"team/moving@{each}", tensors=True).with_digest().digest for each in (first, second)}
    assert len(digests) == 2


def test_a_broken_download_continues_where_it_broke(hub: Hub, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 5000)  # ten megabytes otherwise, more than the file has
    published(hub, clip)
    hub.cut_after["model.safetensors"] = [20_000]
    found = find_checkpoint("team/clip", tensors=True).with_digest()
    assert found.digest == find_checkpoint(str(clip)).with_digest().digest
    ranges = [part for method, path, part in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert ranges == ["", "bytes=20000-"]


def test_only_files_of_tensors_and_settings_are_fetched(hub: Hub, clip: Path, tmp_path: Path) -> None:
    """Neither code nor pickles are downloaded."""
    folder = write_checkpoint(tmp_path / "remote", "clip")
    (folder / "config.json").write_text('{"model_type": "other", "auto_map": {"AutoModel": "modeling_other.Other"}}')
    (folder / "modeling_other.py").write_text("raise SystemExit(9)")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    published(hub, folder, name="team/remote")
    with pytest.raises(ConfigError, match="needs code of its repository, which is never run"):
        extractor_kind("transformers:team/remote")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        find_checkpoint("team/remote", tensors=True).with_digest()
    assert not {"modeling_other.py", "pytorch_model.bin"} & set(hub.files_fetched())


def test_a_refusal_of_the_hub_is_an_error_of_one_line(hub: Hub, clip: Path) -> None:
    published(hub, clip)
    hub.repositories["team/gated"] = Repository(error="GatedRepo")
    for name, complaint in (
        ("team/nothing", r"https://huggingface\.co/team/nothing does not exist or is private; check the name"),
        ("team/gated", r"is gated; accept its terms at https://huggingface\.co/team/gated, then run `hf auth login`"),
        (f"team/clip@{'0' * 40}", f"https://huggingface.co/team/clip has no revision {'0' * 40}"),
    ):
        with pytest.raises(ConfigError, match=complaint) as caught:
            extractor_kind(f"transformers:{name}")
        assert "\n" not in str(caught.value)
    hub.down = True
    with pytest.raises(ConfigError, match="is not on this machine, and the hub cannot be reached") as caught:
        extractor_kind("transformers:team/another")
    assert "\n" not in str(caught.value)
