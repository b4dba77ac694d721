"""Credentials and signatures of URLs are used to fetch videos, and are not printed or stored."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from clips import Clip, write_clip
from signed_server import LOGIN, QUERY, SECRET, serving_signed
from store_contents import stored_rows
from typer.testing import CliRunner

from arabesque.cli import main
from arabesque.manifests.errors import ArabesqueError, DecodeError, InputError, StoreError
from arabesque.manifests.urls import join_url, public_text, public_url
from arabesque.pipeline.records import one_line
from arabesque.pipeline.store.files.storage import as_store_path
from arabesque.pipeline.store.reader import FeatureStore


def said(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.commands, list(map(str, arguments)))
    return result.exit_code, result.output + str(result.exception or "")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "day").mkdir()
    write_clip(folder / "day" / "a.mp4", Clip(num_frames=70))
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def server(videos):
    with serving_signed(videos) as address:
        yield address


EXTRACT = ("--recipe", "starter", "--stream", "motion", "--threads", 1)


@pytest.mark.parametrize(
    ("given", "shown", "found"),
    [
        ("http://{server}/?{query}", "http://{server}", ["day/a", "noise"]),
        ("http://{login}@{server}/day/", "http://{server}/day", ["a"]),
        ("http://{server}/day/a.mp4?{query}", "http://{server}/day/a.mp4", ["a"]),
    ],
    ids=["signed folder", "password", "signed file"],
)
def test_urls_with_secrets_are_read_and_their_secrets_are_not_kept(
    videos, server, tmp_path, monkeypatch, given, shown, found
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = given.format(server=server, query=QUERY, login=LOGIN)
    store = tmp_path / "out"
    extract = ("extract", url, *EXTRACT, "--out", store)
    if len(found) > 1:
        told = [said(*extract), said(*extract), said("verify", store, "--videos", url)]
        assert "0 remaining" in told[1][1]
        assert "recomputed" in told[2][1]
    else:
        told = [said(*extract)]
    told.append(said("status", store))
    assert (store / "arabesque.toml").exists(), told
    rows, ends = stored_rows(store)
    assert sorted(name for name, _ in ends) == found, told
    assert FeatureStore(store).manifest["inputs"]["folder"] == shown.format(server=server)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in "".join(text for _, text in told)

    local = {"day/a": "day/a.mp4", "a": "day/a.mp4"}
    for name in set(found) & set(local):
        assert said("extract", videos / local[name], *EXTRACT, "--out", tmp_path / name)[0] == 0
        (row,) = stored_rows(tmp_path / name)[0].values()
        assert rows[name, "motion"] == row


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        ("http://{server}/day/a.mp4?Signature=old-{secret}", StoreError, "403"),
        ("http://{server}/day/?Signature=old-{secret}", StoreError, "403"),
        ("http://{server}/day/c.mp4?{query}", ArabesqueError, "/day/c.mp4: no file or folder exists at this address"),
        ("http://me:{secret}@127.0.0.1:9/day", StoreError, "http://127.0.0.1:9/day: cannot be reached"),
        ("ftp2://me:{secret}@host/day?Signature={secret}", InputError, "ftp2://host/day"),
        ("s3x://me:{secret}@bucket/day", InputError, "s3x://bucket/day"),
    ],
)
def test_errors_show_no_secrets(server, tmp_path, given, error, complaint):
    url = given.format(server=server, query=QUERY, secret=SECRET)
    for arguments in (["extract", url, *EXTRACT, "--out", tmp_path / "out"], ["status", url]):
        result = CliRunner().invoke(main.commands, list(map(str, arguments)))
        assert SECRET not in result.output + str(result.exception)
        if arguments[0] == "extract":
            assert isinstance(result.exception, error), result.exception
            assert complaint in str(result.exception)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://h/a.mp4?X-Amz-Signature=1", "https://h/a.mp4"),
        ("https://me:pass@h:80/a%20b/?k=v#part", "https://h:80/a%20b"),
        ("s3://key:secret@bucket/a?versionId=3", "s3://bucket/a"),
        ("s3://bucket/what?.mp4", "s3://bucket/what?.mp4"),
        ("abfs://box@account.example/a?sig=1", "abfs://box@account.example/a"),
        (Path("who?/me@home"), "who?/me@home"),
        ("clips?a=b", "clips?a=b"),
    ],
)
def test_public_url(given, shown):
    assert public_url(given) == shown


def test_secrets_are_removed_from_other_texts():
    text = "404, url='https://me:pw@h/a.mp4?k=v' (see https://h/x?y=z); s3://bucket/a: access denied"
    clean = "404, url='https://h/a.mp4' (see https://h/x); s3://bucket/a: access denied"
    assert public_text(text) == one_line(text) == str(DecodeError(text)) == clean


def test_a_path_is_joined_before_the_query():
    assert join_url("https://h/day/?k=v", "a.mp4") == "https://h/day/a.mp4?k=v"
    assert as_store_path("https://h/day/?k=v/") == "https://h/day?k=v/"
    assert as_store_path("s3://bucket/day/") == "s3://bucket/day"


def test_tracebacks_and_logs_show_no_secrets(tmp_path):
    """With --debug, the traceback contains the exceptions of libraries."""
    url = f"http://me:{SECRET}@127.0.0.1:9/day/a.mp4?Signature={SECRET}"
    command = ["extract", url, "--recipe", "starter", "--out", str(tmp_path / "out"), "--debug"]
    program = "from arabesque.cli.main import app; app()"
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "http://127.0.0.1:9/day/a.mp4: cannot be reached" in done.stderr
    assert SECRET not in done.stderr + done.stdout
