from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import file_server
import pytest
from file_server import BODY, FileServer

from arabesque.manifests.errors import WeightsError
from arabesque.pipeline.weights.downloading import Download, RetryPolicy, require_safe_redirect

FAST = RetryPolicy(attempts=4, first_pause_s=0.01, max_pause_s=0.02, read_timeout_s=0.5, speed_window_s=0.2)

Start = Callable[..., Download]


@pytest.fixture
def start(server: FileServer, tmp_path: Path) -> Start:
    def build(
        size_bytes: int | None = None, max_bytes: int = 1 << 30, url: str | None = None, continues: bool = False
    ) -> Download:
        return Download(url or server.url, tmp_path / ".part", size_bytes, max_bytes, retry=FAST, continues=continues)

    return build


def test_a_download_reports_progress(server: FileServer, tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    Download(server.url, tmp_path / "part", None, 1 << 30, lambda *now: reports.append(now), FAST).run()
    assert (tmp_path / "part").read_bytes() == BODY
    assert reports[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_a_broken_download_is_continued(server: FileServer, start: Start) -> None:
    server.script = [file_server.close_after(100_000), file_server.close_after(200_001)]
    download = start()
    download.run()
    assert download.part.read_bytes() == BODY
    assert [request["Range"] for request in server.requests] == [None, "bytes=100000-", "bytes=200001-"]
    assert server.requests[1]["If-Range"] == '"first"'


def test_another_run_continues_a_part_if_a_digest_is_known(server: FileServer, start: Start) -> None:
    server.etag = None
    server.script = [file_server.close_after(100_000), *[file_server.answer(503)] * 3]
    with pytest.raises(WeightsError, match=r"all 4 attempts failed .*503.*100,000 bytes are kept"):
        start(continues=True).run()
    start(continues=True, url=f"{server.url}?mirror").run()
    assert start().part.read_bytes() == BODY
    assert server.requests[-1]["Range"] == "bytes=100000-"


def test_another_run_restarts_if_no_digest_is_known(server: FileServer, start: Start) -> None:
    server.script = [file_server.close_after(100_000), *[file_server.answer(404)]]
    with pytest.raises(WeightsError):
        start().run()
    start().run()
    assert server.requests[-1]["Range"] is None
    assert start().part.read_bytes() == BODY


@pytest.mark.parametrize("etag", ['W/"weak"', None])
def test_without_a_strong_etag_the_download_restarts(server: FileServer, start: Start, etag: str | None) -> None:
    server.etag = etag
    server.script = [file_server.close_after(100_000)]
    start().run()
    assert [request["Range"] for request in server.requests] == [None, None]
    assert start().part.read_bytes() == BODY


def test_without_range_support_the_download_restarts(server: FileServer, start: Start) -> None:
    server.script = [file_server.close_after(100_000), file_server.ignore_range]
    start().run()
    assert start().part.read_bytes() == BODY


@pytest.mark.parametrize("after_the_change", [file_server.serve, file_server.ignore_if_range])
def test_bytes_of_two_versions_are_never_joined(
    server: FileServer, start: Start, after_the_change: file_server.Step
) -> None:
    def change(handler: file_server.Handler) -> None:
        server.body, server.etag = b"PK\x03\x04" + bytes(300_000), '"second"'
        after_the_change(handler)

    server.script = [file_server.close_after(100_000), change]
    start().run()
    assert start().part.read_bytes() == b"PK\x03\x04" + bytes(300_000)


def test_a_complete_part_is_recognized(server: FileServer, start: Start) -> None:
    start(continues=True).run()
    start(continues=True).run()
    assert server.requests[-1]["Range"] == f"bytes={len(BODY)}-"
    assert start().part.read_bytes() == BODY


def test_a_part_longer_than_the_file_is_discarded(server: FileServer, start: Start) -> None:
    start().run()
    server.body = BODY[:1000]
    start(continues=True).run()
    assert start().part.read_bytes() == BODY[:1000]


def test_a_body_shorter_than_stated_counts_as_a_broken_connection(server: FileServer, start: Start) -> None:
    server.script = [file_server.state_length(len(BODY) + 5)] * 4
    with pytest.raises(WeightsError, match=r"the connection ended at 300,004 of 300,009 bytes"):
        start(continues=True).run()
    start(continues=True).run()  # an honest server answers that nothing follows the part
    assert start().part.read_bytes() == BODY


def test_a_size_other_than_the_manifests_is_refused_at_once(server: FileServer, start: Start) -> None:
    with pytest.raises(WeightsError, match=r"offers 300,004 bytes, but by weights.toml the file has 1,234"):
        start(size_bytes=1234).run()
    assert len(server.requests) == 1
    assert not start().part.exists()


def test_a_size_above_the_limit_is_refused(server: FileServer, start: Start) -> None:
    with pytest.raises(WeightsError, match=r"more than the limit of 1,000"):
        start(max_bytes=1000).run()


@pytest.mark.parametrize("known", [{"max_bytes": 50_000}, {"size_bytes": 50_000}])
def test_an_endless_body_is_cut_and_the_part_removed(server: FileServer, start: Start, known: dict[str, int]) -> None:
    server.script = [file_server.endless]
    with pytest.raises(WeightsError, match=r"sends more than 50,000 bytes; the part was removed"):
        start(**known).run()
    assert not any(start().part.parent.iterdir())


def test_a_body_without_a_stated_size_is_refused(server: FileServer, start: Start) -> None:
    server.script = [file_server.without_length()]
    with pytest.raises(WeightsError, match=r"does not state the size"):
        start().run()


def test_the_size_of_the_manifest_suffices(server: FileServer, start: Start) -> None:
    server.script = [file_server.without_length(upto=100_000), file_server.without_length()]
    start(size_bytes=len(BODY)).run()
    assert len(server.requests) == 2
    assert start().part.read_bytes() == BODY


def test_a_chunked_body_ends_with_its_last_chunk(server: FileServer, start: Start) -> None:
    server.script = [file_server.chunked(upto=1000, end=False), file_server.chunked()]
    start().run()
    assert start().part.read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_missing_file_fails_at_once(server: FileServer, start: Start) -> None:
    server.script = [file_server.answer(404)]
    with pytest.raises(WeightsError, match=r"file\.pth: the server answers 404 Not Found$"):
        start().run()
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_statuses_are_retried(server: FileServer, start: Start, status: int) -> None:
    server.script = [file_server.answer(status, Retry_After=3600)] * 2
    began = time.monotonic()
    start().run()
    assert start().part.read_bytes() == BODY
    assert time.monotonic() - began < 1800  # the server requested an hour; `max_pause_s` limits the pause


def test_pauses_grow_up_to_the_limit(server: FileServer, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses_s: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses_s.append)
    server.script = [file_server.answer(503)] * 3
    start().run()
    assert pauses_s == [0.01, 0.02, 0.02]
    slow = replace(start(), retry=replace(FAST, first_pause_s=1, max_pause_s=60))
    server.script = [file_server.answer(503), file_server.answer(429, Retry_After=30), file_server.answer(503)]
    slow.discard()
    slow.run()
    assert pauses_s[3:] == [1, 30, 4]
    server.script = [file_server.answer(503)] * 4
    with pytest.raises(WeightsError, match="all 4 attempts failed"):
        start(url=f"{server.url}?other").run()
    assert len(pauses_s) == 9  # none after the last attempt


def test_a_server_that_does_not_answer_is_retried(server: FileServer, start: Start) -> None:
    server.script = [file_server.wait_first(1.0)]
    start().run()
    assert len(server.requests) == 2


def test_a_download_that_stalls_is_continued(server: FileServer, start: Start) -> None:
    server.script = [file_server.stall(100_000, seconds=1.0)]
    start().run()
    assert server.requests[-1]["Range"] == "bytes=100000-"
    assert start().part.read_bytes() == BODY


def test_a_slow_connection_counts_as_broken(server: FileServer, start: Start) -> None:
    server.script = [file_server.trickle] * 4
    with pytest.raises(WeightsError, match=r"received only \d+ bytes in"):
        start().run()


def test_a_refused_connection(start: Start) -> None:
    with pytest.raises(WeightsError, match=r"all 4 attempts failed .*refused"):
        start(url="http://127.0.0.1:9/file.pth").run()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/etc/hostname"])
def test_only_web_addresses_are_accepted(start: Start, url: str) -> None:
    with pytest.raises(WeightsError, match="only http and https"):
        start(url=url).run()


def test_a_redirect_never_leaves_https() -> None:
    require_safe_redirect("https://example.org/file.pth", "https://mirror.example.org/file.pth")
    with pytest.raises(WeightsError, match=r"redirects to http://mirror.example.org/file.pth, which is not a safe"):
        require_safe_redirect("https://example.org/file.pth", "http://user:pass@mirror.example.org/file.pth?token=1")


@pytest.mark.parametrize("step", [file_server.answer(404), file_server.answer(503), file_server.close_after(10)])
def test_credentials_of_an_address_are_not_shown(server: FileServer, start: Start, step: file_server.Step) -> None:
    server.script = [step] * 4
    with pytest.raises(WeightsError) as caught:
        start(url=f"{server.url}?token=secret").run()
    with pytest.raises(WeightsError) as refused:
        start(url="http://user:secret@127.0.0.1:9/file.pth?token=secret").run()
    assert "secret" not in str(caught.value) + str(refused.value)


def test_redirects_are_followed_to_web_addresses_only(server: FileServer, start: Start) -> None:
    server.script = [file_server.answer(302, Location="/moved")]
    start().run()
    assert start().part.read_bytes() == BODY
    server.script = [file_server.answer(302, Location="ftp://127.0.0.1/file.pth")]
    with pytest.raises(WeightsError, match=r"redirects to ftp://127.0.0.1/file.pth, which is not a safe address"):
        start(url=f"{server.url}?again").run()
