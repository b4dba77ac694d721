from __future__ import annotations

import io
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPMessage
from pathlib import Path

import file_server
import pytest
from file_server import BODY, FileServer

from arabesque.manifests.errors import WeightsError
from arabesque.pipeline.weights.downloading import Download, Patience, _SafeRedirects

HASTE = Patience(attempts=4, first_pause_s=0.01, longest_pause_s=0.02, silence_s=0.5, window_s=0.2)

Start = Callable[..., Download]


@pytest.fixture
def start(server: FileServer, tmp_path: Path) -> Start:
    def build(size_bytes: int | None = None, most_bytes: int = 1 << 30, url: str | None = None) -> Download:
        return Download(url or server.url, tmp_path / ".part", size_bytes, most_bytes, patience=HASTE)

    return build


def test_brings_the_file_and_tells_of_it(server: FileServer, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    Download(server.url, tmp_path / "part", None, 1 << 30, lambda *now: told.append(now), HASTE).run()
    assert (tmp_path / "part").read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_goes_on_where_the_connection_broke(server: FileServer, start: Start) -> None:
    server.script = [file_server.break_off(100_000), file_server.break_off(200_001)]
    download = start()
    download.run()
    assert download.part.read_bytes() == BODY
    assert [request["Range"] for request in server.requests] == [None, "bytes=100000-", "bytes=200001-"]
    assert server.requests[1]["If-Range"] == '"first"'


def test_another_process_goes_on_with_what_the_first_left(server: FileServer, start: Start) -> None:
    server.script = [file_server.break_off(100_000), *[file_server.answer(503)] * 3]
    with pytest.raises(WeightsError, match=r"gave up after 4 attempts .*503.*100,000 bytes are kept"):
        start().run()
    start().run()
    assert start().part.read_bytes() == BODY
    assert server.requests[-1]["Range"] == "bytes=100000-"


def test_a_part_of_another_address_is_not_continued(server: FileServer, start: Start) -> None:
    server.script = [file_server.break_off(100_000), *[file_server.answer(404)]]
    with pytest.raises(WeightsError):
        start().run()
    start(url=f"{server.url}?other").run()
    assert server.requests[-1]["Range"] is None
    assert start().part.read_bytes() == BODY


@pytest.mark.parametrize("etag", ['W/"weak"', None])
def test_without_a_strong_etag_it_starts_again(server: FileServer, start: Start, etag: str | None) -> None:
    server.etag = etag
    server.script = [file_server.break_off(100_000)]
    start().run()
    assert [request["Range"] for request in server.requests] == [None, None]
    assert start().part.read_bytes() == BODY


def test_a_server_that_knows_no_ranges_sends_it_all_again(server: FileServer, start: Start) -> None:
    server.script = [file_server.break_off(100_000), file_server.ignore_range]
    start().run()
    assert start().part.read_bytes() == BODY


@pytest.mark.parametrize("after_the_change", [file_server.behave, file_server.ignore_if_range])
def test_bytes_of_two_versions_are_never_joined(
    server: FileServer, start: Start, after_the_change: file_server.Step
) -> None:
    def change(handler: file_server.Handler) -> None:
        server.body, server.etag = b"PK\x03\x04" + bytes(300_000), '"second"'
        after_the_change(handler)

    server.script = [file_server.break_off(100_000), change]
    start().run()
    assert start().part.read_bytes() == b"PK\x03\x04" + bytes(300_000)


def test_a_part_that_is_whole_already_is_recognised(server: FileServer, start: Start) -> None:
    server.script = [file_server.fall_silent(len(BODY), seconds=0)]
    start().run()
    start().run()
    assert server.requests[-1]["Range"] == f"bytes={len(BODY)}-"
    assert start().part.read_bytes() == BODY


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, start: Start) -> None:
    start().run()
    server.body = BODY[:1000]
    start().run()
    assert start().part.read_bytes() == BODY[:1000]


def test_a_length_that_promises_too_much_is_a_broken_connection(server: FileServer, start: Start) -> None:
    server.script = [file_server.state_length(len(BODY) + 5)] * 4
    with pytest.raises(WeightsError, match=r"the connection ended at 300,004 of 300,009 bytes"):
        start().run()
    start().run()  # asked for the rest, an honest server says that there is none
    assert start().part.read_bytes() == BODY


def test_a_length_other_than_the_manifests_is_refused_at_once(server: FileServer, start: Start) -> None:
    with pytest.raises(WeightsError, match=r"offers 300,004 bytes, the file has 1,234 by weights.toml"):
        start(size_bytes=1234).run()
    assert len(server.requests) == 1
    assert not start().part.exists()


def test_an_offer_beyond_the_limit_is_refused(server: FileServer, start: Start) -> None:
    with pytest.raises(WeightsError, match=r"more than the 1,000 that we take"):
        start(most_bytes=1000).run()


@pytest.mark.parametrize("known", [{"most_bytes": 50_000}, {"size_bytes": 50_000}])
def test_an_endless_body_is_cut_and_nothing_is_kept(server: FileServer, start: Start, known: dict[str, int]) -> None:
    server.script = [file_server.endless]
    with pytest.raises(WeightsError, match=r"sends more than 50,000 bytes; nothing of it is kept"):
        start(**known).run()
    assert not any(start().part.parent.iterdir())


def test_a_file_without_a_stated_end_is_refused(server: FileServer, start: Start) -> None:
    server.script = [file_server.without_length()]
    with pytest.raises(WeightsError, match=r"does not say where the file ends"):
        start().run()


def test_a_stated_size_is_an_end_too(server: FileServer, start: Start) -> None:
    server.script = [file_server.without_length(upto=100_000), file_server.without_length()]
    start(size_bytes=len(BODY)).run()
    assert len(server.requests) == 2
    assert start().part.read_bytes() == BODY


def test_a_chunked_body_ends_with_its_last_chunk(server: FileServer, start: Start) -> None:
    server.script = [file_server.chunked(upto=1000, end=False), file_server.chunked()]
    start().run()
    assert start().part.read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_missing_file_is_told_at_once(server: FileServer, start: Start) -> None:
    server.script = [file_server.answer(404)]
    with pytest.raises(WeightsError, match=r"file\.pth: the server answers 404 Not Found$"):
        start().run()
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out(server: FileServer, start: Start, status: int) -> None:
    server.script = [file_server.answer(status, Retry_After=3600)] * 2
    began = time.monotonic()
    start().run()
    assert start().part.read_bytes() == BODY
    assert time.monotonic() - began < 1800  # an hour was asked for; patience says how long we wait at most


def test_pauses_grow_up_to_the_longest(server: FileServer, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses_s: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses_s.append)
    server.script = [file_server.answer(503)] * 3
    start().run()
    assert pauses_s == [0.01, 0.02, 0.02]
    patient = replace(start(), patience=replace(HASTE, first_pause_s=1, longest_pause_s=60))
    server.script = [file_server.answer(503), file_server.answer(429, Retry_After=30), file_server.answer(503)]
    patient.discard()
    patient.run()
    assert pauses_s[3:] == [1, 30, 4]
    server.script = [file_server.answer(503)] * 4
    with pytest.raises(WeightsError, match="gave up after 4 attempts"):
        start(url=f"{server.url}?other").run()
    assert len(pauses_s) == 9  # none after the last attempt


def test_a_server_that_does_not_answer_is_asked_again(server: FileServer, start: Start) -> None:
    server.script = [file_server.wait_first(1.0)]
    start().run()
    assert len(server.requests) == 2


def test_a_server_that_falls_silent_is_asked_for_the_rest(server: FileServer, start: Start) -> None:
    server.script = [file_server.fall_silent(100_000, seconds=1.0)]
    start().run()
    assert server.requests[-1]["Range"] == "bytes=100000-"
    assert start().part.read_bytes() == BODY


def test_a_trickle_counts_as_broken(server: FileServer, start: Start) -> None:
    server.script = [file_server.trickle] * 4
    with pytest.raises(WeightsError, match=r"only \d+ bytes came in"):
        start().run()


def test_nobody_there(start: Start) -> None:
    with pytest.raises(WeightsError, match=r"gave up after 4 attempts .*refused"):
        start(url="http://127.0.0.1:9/file.pth").run()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/etc/hostname"])
def test_only_web_addresses_are_fetched(start: Start, url: str) -> None:
    with pytest.raises(WeightsError, match="only http and https"):
        start(url=url).run()


def test_a_redirect_never_leaves_https() -> None:
    def redirect(new: str) -> object:
        request = urllib.request.Request("https://example.org/file.pth")
        return _SafeRedirects().redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), new)

    assert redirect("https://mirror.example.org/file.pth")
    with pytest.raises(WeightsError, match="no safe address"):
        redirect("http://mirror.example.org/file.pth")


def test_redirects_are_followed_to_web_addresses_only(server: FileServer, start: Start) -> None:
    server.script = [file_server.answer(302, Location="/moved")]
    start().run()
    assert start().part.read_bytes() == BODY
    server.script = [file_server.answer(302, Location="ftp://127.0.0.1/file.pth")]
    with pytest.raises(WeightsError, match=r"sends us on to ftp://127.0.0.1/file.pth, which is no safe address"):
        start(url=f"{server.url}?again").run()
