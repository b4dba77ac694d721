from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import file_server
import pytest
from file_server import BODY, FileServer

from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.manifests.errors import ManifestError, WeightsError
from arabesque.manifests.weights import WeightsEntry, WeightsManifest, load_weights_manifest
from arabesque.pipeline.weights import cache as weights_cache
from arabesque.pipeline.weights import receipts as weights_receipts
from arabesque.pipeline.weights.cache import WeightsCache, cache_folder, resolve_weights
from arabesque.pipeline.weights.downloading import Patience

SHA256 = hashlib.sha256(BODY).hexdigest()
GIT_BLOB = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
OTHER = b"PK\x03\x04" + random.Random(2).randbytes(100_000)
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()
WEIGHTS_OF_PEOPLE = Path(__file__).parents[4] / "shared" / "weights"

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
                "licence": "MIT",
                "layout": "resnet-torchvision",
                "trained_on": "nothing",
                "source": "this test",
            }
            | fields
        )
        patience = Patience(attempts=3, first_pause_s=0.01, longest_pause_s=0.02, silence_s=2)
        return WeightsCache(tmp_path / "cache", WeightsManifest(weights={"net": entry}), patience)

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


def test_what_is_there_is_not_fetched_again(cache: Build, server: FileServer) -> None:
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


def test_all_addresses_complain_in_one_line(cache: Build, server: FileServer) -> None:
    server.script = [file_server.answer(404), file_server.answer(403)]
    net = cache(sha256=SHA256, urls=(f"{server.url}?gone", server.url))
    with pytest.raises(
        WeightsError, match=r"^checkpoint net could not be .*404 .*403 .*`arabesque weights add net FILE`"
    ):
        net.fetch("net")


def test_a_fetch_that_broke_off_is_continued_by_the_next(cache: Build, server: FileServer) -> None:
    server.script = [file_server.break_off(60_000), file_server.answer(503), file_server.answer(503)]
    net = cache(sha256=SHA256)
    with pytest.raises(WeightsError, match="60,000 bytes are kept"):
        net.fetch("net")
    assert net.state("net") == "unfinished"
    net.fetch("net")
    assert server.requests[-1]["Range"] == "bytes=60000-"
    assert net.verify("net").digests.sha256 == SHA256
    assert leftovers(net) == {"net.pth", "receipt.json"}


def test_a_web_page_is_not_recorded_as_a_checkpoint(cache: Build, server: FileServer) -> None:
    server.body = b"<!DOCTYPE html><title>Sign in</title>"
    with pytest.raises(WeightsError, match=r"this is no checkpoint: it begins with b'<!DOCTYPE html>"):
        cache().fetch("net")
    assert leftovers(cache()) == set()


def test_without_a_published_digest_the_first_file_is_the_measure(cache: Build, server: FileServer) -> None:
    net = cache()
    net.fetch("net")
    server.body, server.etag = OTHER, '"second"'
    with pytest.raises(
        WeightsError, match=rf"not what it was: sha256 {SHA256} was recorded, this is sha256 {OTHER_SHA256}"
    ):
        net.fetch("net", force=True)
    assert net.verify("net").digests.sha256 == SHA256
    net.path("net").unlink()
    with pytest.raises(WeightsError, match=r"not what it was"):
        net.fetch("net")


def test_missing_says_what_to_type(cache: Build, server: FileServer) -> None:
    with pytest.raises(
        WeightsError,
        match=rf"^checkpoint net is not in .*: `arabesque weights fetch net` downloads {server.url}, "
        r"`arabesque weights add net FILE` takes a file that you have$",
    ):
        cache().locate("net")
    for step in (cache(urls=()).locate, cache(urls=()).fetch):
        with pytest.raises(WeightsError, match=r"published nowhere: `arabesque weights add net FILE`"):
            step("net")
    with pytest.raises(ManifestError, match="did you mean net"):
        cache().locate("nets")


def test_a_file_is_hashed_once(cache: Build, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = cache(sha256=SHA256)
    net.add("net", file)
    hashed: list[Path] = []

    def counting(path: Path, origin: str) -> weights_receipts.Receipt:
        hashed.append(path)
        return weights_receipts.hash_file(path, origin)

    monkeypatch.setattr(weights_cache, "hash_file", counting)
    net.locate("net")
    assert not hashed
    os.utime(net.path("net"))
    net.locate("net")
    net.locate("net")
    assert hashed == [net.path("net")]
    net.verify("net")
    assert len(hashed) == 2


@pytest.mark.parametrize("published", [{"sha256": SHA256}, {}])
def test_a_file_that_changed_is_refused_and_fetch_mends_it(cache: Build, published: dict[str, Any]) -> None:
    net = cache(**published)
    net.fetch("net")
    net.path("net").write_bytes(OTHER)
    with pytest.raises(WeightsError, match=rf"{SHA256}.*{OTHER_SHA256}; `arabesque weights fetch net` gets it anew"):
        net.locate("net")
    net.fetch("net")
    assert net.locate("net").digest == SHA256


def test_rot_under_an_old_timestamp_is_what_verify_is_for(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    stat = net.path("net").stat()
    net.path("net").write_bytes(OTHER)
    os.utime(net.path("net"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(WeightsError, match=OTHER_SHA256):
        net.verify("net")


def test_a_digest_that_is_published_later_counts_for_what_came_before(cache: Build) -> None:
    cache().fetch("net")
    with pytest.raises(WeightsError, match=rf"expected sha256 {OTHER_SHA256}, got sha256 {SHA256}"):
        cache(sha256=OTHER_SHA256).locate("net")


def test_a_file_put_into_the_folder_is_judged_by_its_bytes(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.path("net").parent.mkdir(parents=True)
    net.path("net").write_bytes(BODY)
    assert net.state("net") == "unchecked"
    assert net.locate("net").digest == SHA256
    assert net.verify("net").origin == "found"
    net.path("net").write_bytes(b"hello")
    (net.path("net").parent / "receipt.json").unlink()
    with pytest.raises(WeightsError, match="this is no checkpoint"):
        cache().locate("net")


def test_a_damaged_receipt_only_costs_a_hash(cache: Build) -> None:
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


def test_what_a_killed_run_left_does_not_lead_to_the_wrong_file(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    net.path("net").parent.mkdir(parents=True)
    another = file.with_name("another.pth")
    another.write_bytes(OTHER)
    os.link(another, net.path("net").with_name(".net.pth.added"))
    net.add("net", file)
    assert another.read_bytes() == OTHER
    assert net.locate("net").digest == SHA256


@pytest.mark.parametrize("head", [b"", b"hello", b"version https://git-lfs.github.com/spec/v1", b"<!DOCTYPE html>"])
def test_what_no_framework_wrote_is_not_added(cache: Build, file: Path, head: bytes) -> None:
    file.write_bytes(head)
    with pytest.raises(WeightsError, match=rf"^{file}: this is no checkpoint: it begins with b'"):
        cache().add("net", file)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x02\x8a\n", (40).to_bytes(8, "little") + b'{"w":'])
def test_zips_pickles_and_safetensors_are_added(cache: Build, file: Path, head: bytes) -> None:
    file.write_bytes(head + BODY)
    assert cache().add("net", file).digests.size_bytes == len(head) + len(BODY)


def test_a_published_size_counts_without_a_digest(cache: Build, file: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected 1,000 bytes, got 300,004"):
        cache(size_bytes=1000).add("net", file)


def test_what_a_symbolic_link_points_to_is_added(cache: Build, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.pth"
    link.symlink_to(file)
    net = cache(sha256=SHA256)
    net.add("net", link)
    assert not net.path("net").is_symlink()
    assert net.locate("net").digest == SHA256


def test_another_file_is_added_only_on_the_users_word(cache: Build, file: Path, server: FileServer) -> None:
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


def test_the_users_word_is_for_those_bytes_only(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    file.write_bytes(OTHER)
    net.add("net", file, trust=True)
    net.path("net").unlink()
    net.path("net").write_bytes(OTHER[:-1])
    with pytest.raises(WeightsError, match=rf"expected sha256 {SHA256}"):
        net.locate("net")


def test_a_pickle_is_opened_for_its_published_digest_or_the_users_word(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256, pickle=True)
    net.add("net", file)
    assert net.locate("net").trusted_pickle
    own = file.with_name("own.pt")
    own.write_bytes(OTHER)
    with pytest.raises(WeightsError, match=r"whole pickle, and opening one runs whatever code is in it.* --trust"):
        net.add("net", own)
    assert net.locate("net").digest == SHA256
    net.add("net", own, trust=True)
    assert net.locate("net").trusted_pickle
    assert net.locate("net").digest == OTHER_SHA256


def test_trusting_the_published_file_makes_no_exception_of_it(cache: Build, file: Path) -> None:
    assert not cache(sha256=SHA256).add("net", file, trust=True).trusted


def test_a_recorded_file_is_replaced_only_on_the_users_word(cache: Build, file: Path) -> None:
    net = cache()
    net.add("net", file)
    file.unlink()
    file.write_bytes(OTHER)
    with pytest.raises(WeightsError, match=rf"sha256 {SHA256} was recorded"):
        net.add("net", file)
    net.add("net", file, trust=True)
    assert net.locate("net").digest == OTHER_SHA256


@pytest.mark.parametrize("bad", ["missing.pth", "."])
def test_there_is_no_such_file(cache: Build, file: Path, bad: str) -> None:
    with pytest.raises(WeightsError, match=r"there is no such file"):
        cache().add("net", file.parent / bad)


def test_two_processes_do_not_fetch_the_same_file_at_once(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    folder = net.path("net").parent
    hold = (
        "import sys; from pathlib import Path; from arabesque.pipeline.weights.cache import _alone_in\n"
        "with _alone_in(Path(sys.argv[1]), 'net'): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for step in (lambda: net.fetch("net"), lambda: net.add("net", file)):
            with pytest.raises(WeightsError, match="another process is at work on it"):
                step()
        other.kill()
    assert net.fetch("net").digests.sha256 == SHA256  # a killed process holds nothing


def test_a_folder_that_cannot_be_made_is_one_line(cache: Build, file: Path) -> None:
    net = cache(sha256=SHA256)
    net.folder.write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot keep checkpoint net there .* ARABESQUE_WEIGHTS$"):
        net.add("net", file)


def test_a_full_disk_is_one_line(cache: Build, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WeightsError, match=r"there \(\[Errno 28\] No space left on device\); make room"):
        cache(sha256=SHA256).add("net", file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_serves(cache: Build) -> None:
    net = cache(sha256=SHA256)
    net.fetch("net")
    os.utime(net.path("net"))
    net.path("net").parent.chmod(0o500)
    assert net.locate("net").digest == SHA256


def test_a_receipt_that_cannot_be_written_does_not_matter(cache: Build, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_other_overrides_are_a_callers_mistake(override: str) -> None:
    with pytest.raises(ValueError, match="give random:SEED"):
        resolve_weights({"network": "net"}, override)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_fetching_does_without_torch() -> None:
    """Importing it would cost every ``arabesque weights`` a second."""
    code = "import sys, arabesque.pipeline.weights.cache, arabesque.cli.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not WEIGHTS_OF_PEOPLE.exists(), reason="needs ../shared/weights")
@pytest.mark.parametrize(
    ("name", "file_name"), [("yolov8n", "yolov8n.pt"), ("i3d_rgb_k400_fp16", "i3d_rgb_kinetics400_fp16.pt")]
)
def test_real_files_are_recognised(tmp_path: Path, name: str, file_name: str) -> None:
    real = WeightsCache(tmp_path, load_weights_manifest())
    real.add(name, WEIGHTS_OF_PEOPLE / file_name)
    assert real.locate(name).trusted_pickle == (name == "yolov8n")
