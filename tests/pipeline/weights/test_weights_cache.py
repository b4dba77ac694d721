from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import file_server
import pytest
from file_server import BODY, FileServer

from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.manifests.errors import ConfigError, WeightsError
from arabesque.manifests.weights import WeightsEntry, WeightsManifest, load_weights_manifest
from arabesque.pipeline.weights import cache as weights_cache
from arabesque.pipeline.weights import receipts as weights_receipts
from arabesque.pipeline.weights.cache import WeightsCache, cache_folder, resolve_weights
from arabesque.pipeline.weights.downloading import RetryPolicy

SHA256 = hashlib.sha256(BODY).hexdigest()
GIT_BLOB = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
OTHER = b"PK\x03\x04" + random.Random(2).randbytes(100_000)
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()
SHARED_WEIGHTS = Path(__file__).parents[4] / "shared" / "weights"

Build = Callable[..., WeightsCache]


@pytest.fixture
def cache(server: FileServer, tmp_path: Path) -> Build:
    """A cache whose manifest lists the server's file as ``net``."""

    def build(**fields: Any) -> WeightsCache:
        entry = WeightsEntry.model_validate(
            {
                "name": "net",
                "file_name": "net.pth",
                "urls": (server.url,),
                "license": "MIT",
                "layout": "resnet-torchvision",
                "trained_on": "nothing",
                "source": "this test",
            }
            | fields
        )
        retry = RetryPolicy(attempts=3, first_pause_s=0.01, max_pause_s=0.02, read_timeout_s=2)
        # the files here contain random bytes, not networks
        return WeightsCache(tmp_path / "cache", WeightsManifest(weights={"net": entry}), retry, fits=lambda *_: None)

    return build


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "downloads" / "mine.pth"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return path


def leftovers(cache: WeightsCache) -> set[str]:
    return {path.name for path in cache.path("net").parent.iterdir()} - {".lock"}


@pytest.mark.parametrize(
    "published",
    [{"sha256": SHA256, "size_bytes": len(BODY)}, {"sha256_prefix": SHA256[:8]}, {"git_blob": GIT_BLOB[:12]}, {}],
)
def test_fetched_verified_located(cache: Build, server: FileServer, published: dict[str, Any]) -> None:
    net = cache(**published)
    assert net.state("net") == "missing"
    net.fetch("net")
    assert net.state("net") == "ready"
    assert net.locate("net") == CheckpointFile("net", net.path("net"), SHA256, "resnet-torchvision")
    assert net.path("net").read_bytes() == BODY
    assert net.verify("net").origin == server.url
    assert leftovers(net) == {"net.pth", "receipt.json"}


def test_an_existing_file_is_not_fetched_again(cache: Build, server: FileServer) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    net.fetch("net")
    assert len(server.requests) == 1
    net.fetch("net", force=True)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("published", "expected", "got"),
    [
        ({"sha256": SHA256}, SHA256, OTHER_SHA256),
        ({"sha256_prefix": SHA256[:8]}, SHA256[:8], OTHER_SHA256),
        ({"git_blob": GIT_BLOB[:12]}, GIT_BLOB[:12], hashlib.sha1(b"blob 100004\0" + OTHER).hexdigest()),
    ],
)
def test_wrong_bytes_are_named_and_removed(
    cache: Build, server: FileServer, published: dict[str, Any], expected: str, got: str
) -> None:
    server.body = OTHER
    net = cache(**published)
    with pytest.raises(
        WeightsError, match=rf"expected \S+( blob)? {expected}…?, got \S+( blob)? {got}; the download is"
    ):
        net.fetch("net")
    assert leftovers(net) == set()


def test_the_second_address_is_tried(cache: Build, server: FileServer) -> None:
    server.script = [file_server.answer(404)]
    net = cache(sha256=SHA256, urls=(f"{server.url}?gone", server.url))
    assert net.fetch("net").origin == server.url


def test_errors_of_all_addresses_are_one_line(cache: Build, server: FileServer) -> None:
    server.script = [file_server.answer(404), file_server.answer(403)]
    net = cache(sha256=SHA256, urls=(f"{server.url}?gone", server.url))
    with pytest.raises(
        WeightsError, match=r"^checkpoint net could not be .*404 .*403 .*`arabesque weights add net FILE`"
    ):
        net.fetch("net")


def test_an_interrupted_fetch_is_continued_by_the_next(cache: Build, server: FileServer) -> None:
    server.script = [file_server.close_after(60_000), file_server.answer(503), file_server.answer(503)]
    net = cache(sha256=SHA256)
    with pytest.raises(WeightsError, match="60,000 bytes are kept"):
        net.fetch("net")
    assert net.state("net") == "unfinished"
    net.fetch("net")
    assert server.requests[-1]["Range"] == "bytes=60000-"
    assert net.verify("net").digests.sha256 == SHA256
    assert leftovers(net) == {"net.pth", "receipt.json"}


def test_a_part_of_another_version_is_downloaded_again(cache: Build, server: FileServer) -> None:
    net = cache(sha256=SHA256)
    net.path("net").parent.mkdir(parents=True)
    net.path("net").with_name(".net.pth.part").write_bytes(OTHER[:50_000])
    net.fetch("net")
    assert [request["Range"] for request in server.requests] == ["bytes=50000-", None]
    assert net.path("net").read_bytes() == BODY
    assert leftovers(net) == {"net.pth", "receipt.json"}


def test_a_web_page_is_not_recorded_as_a_checkpoint(cache: Build, server: FileServer) -> None:
    server.body = b"<!DOCTYPE html><title>Sign in</title>"
    with pytest.raises(WeightsError, match=r"is not a checkpoint: it begins with b'<!DOCTYPE html>"):
        cache().fetch("net")
    assert leftovers(cache()) == set()


def test_without_a_published_digest_later_files_must_equal_the_first(cache: Build, server: FileServer) -> None:
    net = cache()
    net.fetch("net")
    server.body, server.etag = OTHER, '"second"'
    with pytest.raises(
        WeightsError, match=rf"has changed: sha256 {SHA256} was recorded, this is sha256 {OTHER_SHA256}"
    ):
        net.fetch("net", force=True)
    assert net.verify("net").digests.sha256 == SHA256
    net.path("net").unlink()
    with pytest.raises(WeightsError, match=r"has changed"):
        net.fetch("net")


def test_a_missing_checkpoint_is_reported_with_the_command(cache: Build, server: FileServer) -> None:
    with pytest.raises(
        WeightsError,
        match=rf"^checkpoint net is not in .*: `arabesque weights fetch net --weights-manifest TOML` downloads "
        rf"{server.url}, `arabesque weights add net FILE --weights-manifest TOML` adds a file that you have$",
    ):
        cache().locate("net")
    for step in (cache(urls=()).locate, cache(urls=()).fetch):
        with pytest.raises(WeightsError, match=r"no download address is published: `arabesque weights add net FILE "):
            step("net")
    with pytest.raises(ConfigError, match="did you mean net"):
        cache().locate("nets")


def test_a_flipped_bit_with_the_old_time_is_detected(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    stat = net.path("net").stat()
    damaged = bytearray(BODY)
    damaged[len(BODY) // 2] ^= 1
    net.path("net").write_bytes(damaged)
    os.utime(net.path("net"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert net.state("net") == "ready"  # `weights list` relies on the receipt
    for step in (net.locate, net.verify, lambda name: resolve_weights({"network": name}, cache=net)):
        with pytest.raises(WeightsError, match=rf"expected sha256 {SHA256}, got sha256 "):
            step("net")


def planted(path: Path, content: bytes, **changes: Any) -> None:
    """Write a file into the cache with a receipt that states another digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digests = weights_receipts.Digests(size_bytes=len(content), sha256=changes.pop("sha256", SHA256))
    receipt = weights_receipts.Receipt(
        digests=digests, modified_ns=path.stat().st_mtime_ns, origin="planted", **changes
    )
    weights_receipts.receipt_path(path).write_text(receipt.model_dump_json())


def test_a_planted_receipt_does_not_make_a_pickle_trusted(cache: Build) -> None:
    net = cache(sha256=SHA256, pickle=True)
    for changes in ({}, {"trusted": True}):
        planted(net.path("net"), OTHER, **changes)
        with pytest.raises(WeightsError, match=rf"expected sha256 {SHA256}, got sha256 {OTHER_SHA256}"):
            net.locate("net")


@pytest.mark.parametrize("what", ["receipt", "folder"])
@pytest.mark.parametrize("others_may", ["write", "own"])
def test_a_receipt_that_others_may_write_is_ignored(cache: Build, what: str, others_may: str) -> None:
    net = cache(sha256=SHA256, pickle=True)
    planted(net.path("net"), OTHER, sha256=OTHER_SHA256, trusted=True)
    assert net.locate("net").trusted_pickle  # as if the user had added it with --trust
    receipt = weights_receipts.receipt_path(net.path("net"))
    where = receipt if what == "receipt" else receipt.parent
    if others_may == "write":
        where.chmod(where.stat().st_mode | 0o020)
    elif os.geteuid() == 0:
        os.chown(where, 12345, 12345)
    else:
        pytest.skip("only root may change the owner of files")
    with pytest.raises(
        WeightsError, match=rf"got sha256 {OTHER_SHA256}; .*make sure that only you may write to .* add it again"
    ):
        net.locate("net")


def test_a_receipt_behind_a_link_is_ignored(cache: Build, tmp_path: Path) -> None:
    net = cache(sha256=SHA256, pickle=True)
    planted(net.path("net"), OTHER, sha256=OTHER_SHA256, trusted=True)
    receipt = weights_receipts.receipt_path(net.path("net"))
    receipt.rename(tmp_path / "elsewhere.json")
    receipt.symlink_to(tmp_path / "elsewhere.json")
    assert net.state("net") == "unchecked"
    with pytest.raises(WeightsError, match=OTHER_SHA256):
        net.locate("net")


def test_receipts_are_private_with_any_umask(cache: Build) -> None:
    before = os.umask(0o002)
    try:
        net = cache(sha256=SHA256)
        net.fetch("net")
    finally:
        os.umask(before)
    assert net.state("net") == "ready"


@pytest.mark.parametrize(
    "damage", ['"sha256": "short"', '"sha256": 3', '"size_bytes": -1, "sha256": "{}"', '"nets": 1']
)
def test_an_invalid_receipt_counts_as_missing(cache: Build, damage: str) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    receipt = weights_receipts.receipt_path(net.path("net"))
    receipt.write_text('{"digests": {' + damage + '}, "modified_ns": 0, "origin": "x"}')
    assert net.state("net") == "unchecked"
    assert net.locate("net").digest == SHA256


@pytest.mark.parametrize("published", [{"sha256": SHA256}, {}])
def test_a_changed_file_is_refused_and_fetch_replaces_it(cache: Build, published: dict[str, Any]) -> None:
    net = cache(**published)
    net.fetch("net")
    net.path("net").write_bytes(OTHER)
    with pytest.raises(
        WeightsError, match=rf"{SHA256}.*{OTHER_SHA256}; `arabesque weights fetch net` downloads it again"
    ):
        net.locate("net")
    net.fetch("net")
    assert net.locate("net").digest == SHA256


def test_verify_detects_other_bytes_with_the_old_time(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    stat = net.path("net").stat()
    net.path("net").write_bytes(OTHER)
    os.utime(net.path("net"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(WeightsError, match=OTHER_SHA256):
        net.verify("net")


def test_a_digest_published_later_applies_to_earlier_files(cache: Build) -> None:
    cache().fetch("net")
    with pytest.raises(WeightsError, match=rf"expected sha256 {OTHER_SHA256}, got sha256 {SHA256}"):
        cache(sha256=OTHER_SHA256).locate("net")


def test_a_file_put_into_the_folder_is_verified_by_its_digest(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.path("net").parent.mkdir(parents=True)
    net.path("net").write_bytes(BODY)
    assert net.state("net") == "unchecked"
    assert net.locate("net").digest == SHA256
    assert net.verify("net").origin == "found"
    net.path("net").write_bytes(b"hello")
    (net.path("net").parent / "receipt.json").unlink()
    with pytest.raises(WeightsError, match="is not a checkpoint"):
        cache().locate("net")


def test_a_damaged_receipt_is_replaced(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    (net.path("net").parent / "receipt.json").write_text("{")
    assert net.locate("net").digest == SHA256
    assert net.state("net") == "ready"


def test_added_by_hard_link_or_copy(cache: Build, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = cache(sha256=SHA256)
    net.add("net", file)
    assert net.path("net").samefile(file)

    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    net.add("net", file)
    assert not net.path("net").samefile(file)
    assert net.path("net").read_bytes() == BODY
    assert leftovers(net) == {"net.pth", "receipt.json"}


def test_a_leftover_link_of_a_killed_run_is_not_overwritten(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    net.path("net").parent.mkdir(parents=True)
    another = file.with_name("another.pth")
    another.write_bytes(OTHER)
    os.link(another, net.path("net").with_name(".net.pth.added"))
    net.add("net", file)
    assert another.read_bytes() == OTHER
    assert net.locate("net").digest == SHA256


@pytest.mark.parametrize("head", [b"", b"hello", b"version https://git-lfs.github.com/spec/v1", b"<!DOCTYPE html>"])
def test_a_file_in_no_known_format_is_not_added(cache: Build, file: Path, head: bytes) -> None:
    file.write_bytes(head)
    with pytest.raises(WeightsError, match=rf"^{file}: is not a checkpoint: it begins with b'"):
        cache().add("net", file)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x02\x8a\n", (40).to_bytes(8, "little") + b'{"w":'])
def test_zips_pickles_and_safetensors_are_added(cache: Build, file: Path, head: bytes) -> None:
    file.write_bytes(head + BODY)
    assert cache().add("net", file).digests.size_bytes == len(head) + len(BODY)


def test_a_published_size_is_checked_without_a_digest(cache: Build, file: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected 1,000 bytes, got 300,004"):
        cache(size_bytes=1000).add("net", file)


def test_the_target_of_a_symbolic_link_is_added(cache: Build, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.pth"
    link.symlink_to(file)
    net = cache(sha256=SHA256)
    net.add("net", link)
    assert not net.path("net").is_symlink()
    assert net.locate("net").digest == SHA256


def test_another_file_is_added_only_with_trust(cache: Build, file: Path, server: FileServer) -> None:
    net = cache(sha256=SHA256)
    file.write_bytes(OTHER)
    with pytest.raises(WeightsError, match=rf"expected sha256 {SHA256}, .*`arabesque weights add net {file} --trust`"):
        net.add("net", file)
    assert leftovers(net) == set()
    net.add("net", file, trust=True)
    located = net.locate("net")
    assert (located.digest, located.trusted_pickle) == (OTHER_SHA256, False)
    assert net.fetch("net").digests.sha256 == OTHER_SHA256
    assert not server.requests
    assert net.fetch("net", force=True).digests.sha256 == SHA256


def test_trust_applies_to_those_bytes_only(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    file.write_bytes(OTHER)
    net.add("net", file, trust=True)
    net.path("net").unlink()
    net.path("net").write_bytes(OTHER[:-1])
    with pytest.raises(WeightsError, match=rf"expected sha256 {SHA256}"):
        net.locate("net")


def test_a_pickle_is_trusted_by_published_digest_or_with_trust(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256, pickle=True)
    net.add("net", file)
    assert net.locate("net").trusted_pickle
    own = file.with_name("own.pt")
    own.write_bytes(OTHER)
    with pytest.raises(WeightsError, match=r"full pickle, and loading it runs any code that it contains.* --trust"):
        net.add("net", own)
    assert net.locate("net").digest == SHA256
    net.add("net", own, trust=True)
    assert net.locate("net").trusted_pickle
    assert net.locate("net").digest == OTHER_SHA256


def test_another_known_checkpoint_is_named(cache: Build, file: Path) -> None:
    entry = cache(sha256=SHA256).manifest.entry("net")
    others = {
        "other": {"name": "other", "sha256": OTHER_SHA256},
        "blob": {"name": "blob", "sha256": None, "git_blob": GIT_BLOB[:12]},
        "twin": {"name": "twin", "sha256": "1" * 64},
        "detector": {"name": "detector", "sha256": "2" * 64, "layout": "ultralytics-yolo", "pickle": True},
        "first": {"name": "first", "sha256": None},
        "second": {"name": "second", "sha256": None},
    }
    entries = {name: entry.model_copy(update=fields) for name, fields in others.items()}
    both = WeightsCache(cache().folder, WeightsManifest(weights=entries), fits=lambda *_: None)
    other = file.with_name("other.pth")
    other.write_bytes(OTHER)
    for name in ("twin", "detector", "blob", "first"):
        with pytest.raises(WeightsError) as caught:
            both.add(name, other)
        assert f"{other}: this is checkpoint other (nothing), not {name}; `arabesque weights add other" in str(
            caught.value
        )
        assert "--trust" not in str(caught.value)
    with pytest.raises(WeightsError, match="this is checkpoint blob"):
        both.add("twin", file)
    with pytest.raises(WeightsError, match="this is checkpoint other"):  # another layout, so it cannot be meant
        both.add("detector", other, trust=True)
    assert both.add("twin", other, trust=True).trusted
    third = file.with_name("third.pth")
    third.write_bytes(b"PK\x03\x04" + OTHER)
    both.add("first", third)
    with pytest.raises(WeightsError, match="this is checkpoint first"):
        both.add("second", third)


def test_a_file_that_does_not_fit_the_network_is_refused_even_with_trust(cache: Build, file: Path) -> None:
    def refuse(entry: WeightsEntry, path: Path, digest: str) -> None:
        raise WeightsError(f"{path}: {digest} is not a {entry.layout}")

    for published in ({"sha256": SHA256}, {}):
        net = replace(cache(**published), fits=refuse)
        other = file.with_name("other.pth")
        other.write_bytes(OTHER)
        for trust in (False, True):
            with pytest.raises(WeightsError, match=rf"^{other}: {OTHER_SHA256} is not a resnet-torchvision$"):
                net.add("net", other, trust=trust)
        assert leftovers(net) == set()
    assert replace(cache(sha256=SHA256), fits=refuse).add("net", file).digests.sha256 == SHA256


def test_the_published_file_is_not_marked_as_trusted(cache: Build, file: Path) -> None:
    assert not cache(sha256=SHA256).add("net", file, trust=True).trusted


def test_a_recorded_file_is_replaced_only_with_trust(cache: Build, file: Path) -> None:
    net = cache()
    net.add("net", file)
    file.unlink()
    file.write_bytes(OTHER)
    with pytest.raises(WeightsError, match=rf"sha256 {SHA256} was recorded"):
        net.add("net", file)
    net.add("net", file, trust=True)
    assert net.locate("net").digest == OTHER_SHA256


@pytest.mark.parametrize("bad", ["missing.pth", "."])
def test_a_missing_file_cannot_be_added(cache: Build, file: Path, bad: str) -> None:
    with pytest.raises(WeightsError, match=r"file not found"):
        cache().add("net", file.parent / bad)


def test_two_processes_do_not_fetch_the_same_file_at_once(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    folder = net.path("net").parent
    hold = (
        "import sys; from pathlib import Path; from arabesque.pipeline.weights.cache import locked_folder\n"
        "with locked_folder(Path(sys.argv[1]), 'net'): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for step in (lambda: net.fetch("net"), lambda: net.add("net", file)):
            with pytest.raises(WeightsError, match="another process is downloading or adding it"):
                step()
        other.kill()
    assert net.fetch("net").digests.sha256 == SHA256  # a killed process holds no lock


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    net.folder.write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot store checkpoint net there .* ARABESQUE_WEIGHTS to another"):
        net.add("net", file)


def test_a_full_disk_is_reported_in_one_line(cache: Build, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WeightsError, match=r"there \(\[Errno 28\] No space left on device\); free disk space"):
        cache(sha256=SHA256).add("net", file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_can_be_used(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    os.utime(net.path("net"))
    net.path("net").parent.chmod(0o500)
    assert net.locate("net").digest == SHA256


def test_a_receipt_that_cannot_be_written_is_ignored(cache: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    os.utime(net.path("net"))

    def read_only(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(weights_cache, "write_receipt", read_only)
    assert net.locate("net").digest == SHA256


def test_roles_are_filled_from_the_cache_or_at_random(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    assert resolve_weights({"network": "net", "detector": "net"}, cache=net) == {
        "network": net.locate("net"),
        "detector": net.locate("net"),
    }
    assert resolve_weights({"network": "nowhere"}, "random:7") == {"network": RandomWeights(7)}
    assert resolve_weights({}) == {}
    with pytest.raises(WeightsError, match="arabesque weights fetch net"):
        resolve_weights({"network": "net"}, cache=WeightsCache(net.folder / "other", net.manifest))


@pytest.mark.parametrize(
    "override", ["random", "random:", "random:-1", "random:x", "seed:1", "random:²", f"random:{1 << 63}"]
)
def test_malformed_overrides_are_refused(override: str) -> None:
    with pytest.raises(ValueError, match="give random:SEED"):
        resolve_weights({"network": "net"}, override)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ARABESQUE_WEIGHTS", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "arabesque" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "arabesque" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert cache_folder() == Path("/scratch/cache/arabesque/weights")
    monkeypatch.setenv("ARABESQUE_WEIGHTS", "~/weights")
    assert cache_folder() == tmp_path / "weights"


def test_weights_commands_do_not_import_torch() -> None:
    """Importing torch would add a second to every ``arabesque weights`` command."""
    code = "import sys, arabesque.pipeline.weights.cache, arabesque.cli.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not SHARED_WEIGHTS.exists(), reason="needs ../shared/weights")
@pytest.mark.parametrize(
    ("name", "file_name"), [("yolov8n", "yolov8n.pt"), ("i3d_rgb_k400_fp16", "i3d_rgb_kinetics400_fp16.pt")]
)
def test_real_files_are_recognized(tmp_path: Path, name: str, file_name: str) -> None:
    real = WeightsCache(tmp_path, load_weights_manifest())
    real.add(name, SHARED_WEIGHTS / file_name)
    assert real.locate(name).trusted_pickle == (name == "yolov8n")


@pytest.mark.skipif(not SHARED_WEIGHTS.exists(), reason="needs ../shared/weights")
@pytest.mark.parametrize("name", ["resnet50_imagenet", "i3d_rgb_k400", "raft_large_sintel", "x3d_m_k400", "yolov8n"])
def test_a_real_file_with_another_name_is_recognized(tmp_path: Path, name: str) -> None:
    real = WeightsCache(tmp_path, load_weights_manifest())
    known = {"yolov8n.pt": "yolov8n", "i3d_rgb_kinetics400_fp16.pt": "i3d_rgb_k400_fp16"}
    for file_name, true_name in known.items():
        if true_name != name:
            with pytest.raises(WeightsError, match=rf"this is checkpoint {true_name} .*, not {name}") as caught:
                real.add(name, SHARED_WEIGHTS / file_name)
            assert "--trust" not in str(caught.value)
