from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import file_server
import pytest
import torch
from file_server import FileServer
from json_documentation import problems_of
from torchvision.models.optical_flow import raft_small
from typer.testing import CliRunner, Result

from arabesque.cli.weights import app
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.weights import load_weights_manifest, parse_weights_manifest
from arabesque.pipeline.weights import cache as weights_cache

BODY = b"PK\x03\x04" + bytes(50_000)
SHA256 = hashlib.sha256(BODY).hexdigest()

MANIFEST = """
[weights.net]
file_name = "net.pth"
urls = ["{url}"]
sha256 = "{sha256}"
size_bytes = 50004
license = "MIT"
layout = "resnet-torchvision"
trained_on = "nothing"
source = "this test"

[weights.raft_small]
file_name = "raft_small.pth"
urls = ["{url}"]
sha256_prefix = "00000000"
license = "MIT"
layout = "raft-torchvision"
trained_on = "nothing"
source = "this test"

[weights.unpublished]
file_name = "unpublished.pth"
urls = ["{url}"]
license = "AGPL-3.0"
layout = "resnet-torchvision"
trained_on = "nothing"
source = "this test"
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """Server of the files of a test manifest. The commands use this manifest and a temporary cache."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    with file_server.serving(BODY) as files:
        manifest = parse_weights_manifest(MANIFEST.format(url=files.url, sha256=SHA256), "test")
        monkeypatch.setattr(weights_cache, "load_weights_manifest", lambda: manifest)
        yield files


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.usefixtures("server")
def test_list_shows_the_state_of_each_checkpoint() -> None:
    assert [line.split()[:2] for line in run("list").stdout.splitlines()[2:-1]] == [
        ["net", "missing"],
        ["raft_small", "missing"],
        ["unpublished", "missing"],
    ]
    run("fetch", "net")
    listed = run("list")
    assert listed.stdout.splitlines()[2].split() == ["net", "ready", "0", "MB", "MIT", "-"]
    assert listed.exit_code == 0


def test_list_as_json(server: FileServer, tmp_path: Path) -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert [entry["name"] for entry in listed] == ["net", "raft_small", "unpublished"]
    assert listed[0]["urls"] == [server.url]
    assert listed[0]["state"] == "missing"
    assert listed[0]["path"] == str(tmp_path / "cache" / "net" / "net.pth")


def test_list_of_the_package_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    listed = run("list")
    assert set(load_weights_manifest().weights) <= set(listed.stdout.split())
    assert max(map(len, listed.stdout.splitlines()[1:])) <= 80


@pytest.mark.usefixtures("server")
def test_fetch_prints_how_the_file_was_verified() -> None:
    fetched = run("fetch", "net", "unpublished", "net")
    assert fetched.exit_code == 0
    assert fetched.stdout.splitlines() == [
        f"net: verified: sha256 {SHA256}",
        f"unpublished: no published digest; recorded on first use: sha256 {SHA256}",
    ]


def test_fetch_downloads_once_unless_forced(server: FileServer) -> None:
    run("fetch", "net")
    assert run("fetch", "net").exit_code == 0
    assert len(server.requests) == 1
    run("fetch", "net", "--force")
    assert len(server.requests) == 2


def test_one_failure_does_not_stop_the_others(server: FileServer) -> None:
    server.script = [file_server.answer(404)]
    fetched = run("fetch", "net", "unpublished")
    assert fetched.exit_code == 1
    assert fetched.stdout.startswith("unpublished: ")
    assert "404" in fetched.stderr
    assert len(fetched.stderr.splitlines()) == 1


@pytest.mark.usefixtures("server")
def test_fetch_what_a_recipe_needs(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\nsummary = "a test"\n[streams.frame]\nextractor = "resnet_frame"\nweights = {network = "net"}\n'
        'sampling = { fps = 1, frames_per_segment = 1, frames_per_step = 1, remainder = "drop-tail" }\n'
    )
    assert run("fetch", "--recipe", str(recipe)).stdout == f"net: verified: sha256 {SHA256}\n"
    recipe.write_text(recipe.read_text().replace('"net"', '"random:0"'))
    for name in (str(recipe), "starter"):
        nothing = run("fetch", "--recipe", name, "--json")
        assert (nothing.exit_code, json.loads(nothing.stdout)) == (0, [])


@pytest.mark.usefixtures("server")
def test_a_folder_of_transformers_is_one_of_the_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(BODY)
    found = run("fetch", "net", f"transformers:{tmp_path}", f"transformers:{tmp_path}/nowhere", "--json")
    results = json.loads(found.stdout)
    assert problems_of("weights fetch", results) == []
    assert [each["ok"] for each in results] == [True, True, False]
    assert found.exit_code == 1


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("arguments", [("fetch",), ("add", "net"), ("list", "--jsn"), ("reapir",)])
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.usefixtures("server")
def test_an_unknown_name_is_reported_before_fetching() -> None:
    outcome = run("fetch", "net", "nett")
    assert isinstance(outcome.exception, ConfigError)  # which `arabesque` turns into a line and status 2
    assert not outcome.stdout


@pytest.mark.usefixtures("server")
def test_verify_reads_the_bytes(tmp_path: Path) -> None:
    assert "contains no checkpoint to verify" in run("verify").stdout
    run("fetch", "net")
    assert run("verify").stdout == f"net: verified: sha256 {SHA256}\n"
    (tmp_path / "cache" / "net" / "net.pth").write_bytes(BODY + b"!")
    verified = run("verify")
    assert verified.exit_code == 1
    assert f"expected sha256 {SHA256}" in verified.stderr
    assert run("verify", "unpublished").exit_code == 1


@pytest.mark.usefixtures("server")
def test_add_accepts_an_unpublished_file_with_trust(tmp_path: Path) -> None:
    own = tmp_path / "own [1].pth"
    torch.save(raft_small(weights=None).state_dict(), own)
    refused = run("add", "raft_small", str(own))
    assert refused.exit_code == 1
    assert f"`arabesque weights add raft_small {own} --trust`" in refused.stderr
    added = run("add", "raft_small", str(own), "--trust")
    assert added.exit_code == 0
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert added.stdout == f"raft_small: accepted with --trust, not the published file: sha256 {digest}\n"


@pytest.mark.usefixtures("server")
def test_add_refuses_another_network_even_with_trust(tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    torch.save(raft_small(weights=None).state_dict(), own)
    for name in ("net", "unpublished"):
        for option in ((), ("--trust",)):
            refused = run("add", name, str(own), *option)
            assert refused.exit_code == 1
            assert f"{own}: checkpoint {name} (layout resnet-torchvision) does not fit its network" in refused.stderr
            assert "trust" not in refused.stderr
