"""Videos at a URL: discovery, prefetching within limits, and removal of copies after use."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.decoding.source_files import read_content
from arabesque.pipeline.planning.discovery import find_videos
from arabesque.pipeline.planning.metadata_cache import MetadataCache
from arabesque.pipeline.records import state_of
from arabesque.pipeline.stages.fetch import Prefetcher, local_copies


def FREE(file):
    return True


@pytest.fixture
def url(tmp_path):
    return f"memory://{tmp_path.name}"


@pytest.fixture(autouse=True)
def spools(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: sorted(tmp_path.glob("arabesque-spool-*"))


def upload(url, **contents):
    for name, content in contents.items():
        with fsspec.open(f"{url}/{name}", "wb") as file:
            file.write(content)


def copies(spools):
    return [path for folder in spools() for path in folder.iterdir() if path.name != "lock"]


def test_ids_and_other_files_are_as_in_a_folder(url, tmp_path):
    names = ["a.mp4", "day 2/späth.webm", "b.mp4", "b.avi", "notes.txt", ".hidden.mp4", "day 2/.x/c.mp4"]
    upload(url, **dict.fromkeys(names, b"x"))
    for name in names:
        (tmp_path / "disk" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "disk" / name).write_bytes(b"x")
    there, here = find_videos(f"{url}/"), find_videos(tmp_path / "disk")
    assert [file.video_id for file in there.videos] == [file.video_id for file in here.videos]
    assert str(there.videos[1].path) == f"{url}/day 2/späth.webm"
    assert {name: [path.name for path in paths] for name, paths in there.clashes.items()} == {"b": ["b.avi", "b.mp4"]}
    assert there.num_other_files == here.num_other_files
    assert [file.video_id for file in find_videos(f"{url}/b.mp4").videos] == ["b"]
    with pytest.raises(FileNotFoundError):
        find_videos(f"{url}/nothing")


def test_an_empty_url_is_reported_on_every_file_system(url, monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(fsspec.filesystem("memory"), "find", refuse)
    with pytest.raises(FileNotFoundError, match=url):
        find_videos(url)


@pytest.fixture
def web_folder(tmp_path):
    """A folder that a web server lists, and its URL."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_videos_on_a_web_server_are_identified_by_its_headers(web_folder):
    folder, url = web_folder
    for name in ("a.mp4", "b 2.mp4", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    found = find_videos(url)
    assert [(file.video_id, file.state.size_bytes) for file in found.videos] == [("a", 5), ("b%202", 7)]
    assert all(file.state.modified_ns > 0 for file in found.videos)
    assert found.num_other_files == 1
    assert find_videos(f"{url}/a.mp4").videos[0].state == found.videos[0].state
    with closing(Prefetcher()) as spool:
        for video in spool.ahead(found.videos, FREE):
            assert video.wait().read_bytes() == video.origin.path.name.replace("%20", " ").encode()


def test_folders_below_a_web_folder_are_listed_once(web_folder):
    folder, url = web_folder
    (folder / "day 2" / "ring").mkdir(parents=True)
    for name in ("a.mp4", "day 2/b.mp4", "day 2/ring/c.mp4"):
        (folder / name).write_bytes(b"pictures")
    links = [
        "./",
        "../",
        "../day%202/",
        "gone/",
        "ring/",
        "ring/.././ring/",
        "b.mp4",
        "?C=M;O=A",
        "http://127.0.0.1:9/x/",
    ]
    (folder / "day 2" / "index.html").write_text("".join(f"<a href='{link}'>{link}</a>" for link in links))
    found = find_videos(url)
    assert [file.video_id for file in found.videos] == ["a", "day%202/b", "day%202/ring/c"]
    assert found.unlisted == (f"{url}/day%202/gone",)


def test_a_circle_of_folders_on_a_web_server_is_refused(web_folder):
    folder, url = web_folder
    (folder / "a.mp4").write_bytes(b"pictures")
    for name in ("again", "once more"):
        (folder / name).symlink_to(folder)
    with pytest.raises(InputError, match=r"links lead more than 32 folders deep .* probably in a circle"):
        find_videos(url)


def test_a_web_page_is_reported_as_one(web_folder):
    folder, url = web_folder
    (folder / "watch.html").write_text("<html><a href='/login'>sign in</a> to watch</html>")
    with pytest.raises(InputError, match="is a web page without links to video files"):
        find_videos(f"{url}/watch.html?v=abc")
    with pytest.raises(FileNotFoundError, match=f"{url}/nothing"):
        find_videos(f"{url}/nothing?v=abc")


def test_a_full_disk_is_not_an_error_of_the_network(url, spools, monkeypatch):
    upload(url, **{"a.mp4": b"pictures", "b.mp4": b"pictures"})
    files = type(fsspec.filesystem("memory"))
    get_file = files.get_file

    def get(self, key, path, **options):
        if key.endswith("a.mp4"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        get_file(self, key, path, **options)

    monkeypatch.setattr(files, "get_file", get)
    with closing(Prefetcher()) as spool:
        first, second = spool.ahead(find_videos(url).videos, FREE)
        with pytest.raises(StoreError, match=r"a\.mp4: no space for a copy in .*; free space there, or set TMPDIR"):
            first.wait()
        assert second.wait().read_bytes() == b"pictures"
        first.drop()
        second.drop()
        assert copies(spools) == []


def test_a_copy_has_the_identity_of_the_original_and_is_removed_after_use(url, spools):
    upload(url, **{"a.mp4": b"pictures"})
    (file,) = find_videos(url).videos
    with closing(Prefetcher()) as spool:
        (video,) = spool.ahead([file], FREE)
        copy = video.wait()
        assert copy.read_bytes() == b"pictures"
        assert state_of(copy)[:2] == file.state[:2]
        assert copies(spools) == [copy]
        video.drop()
        assert copies(spools) == []
    assert spools() == []


def test_the_spool_stays_within_its_limit(url, spools):
    upload(url, **{f"{name}.mp4": b"x" * 400 for name in "abc"})
    with closing(Prefetcher(max_bytes=1000)) as spool:
        first, second, third = spool.ahead(find_videos(url).videos, FREE)
        first.wait()
        second.wait()
        with pytest.raises(TimeoutError):
            third._copying.result(timeout=0.2)
        assert len(copies(spools)) == 2
        first.drop()
        third.wait()


def test_copies_for_measurements_fit_the_limit_and_are_removed(url, spools, tmp_path):
    upload(url, **{f"{name}.mp4": b"x" * 400 for name in "abc"})
    (tmp_path / "d.mp4").write_bytes(b"here")
    files = find_videos(url, tmp_path / "d.mp4").videos
    with local_copies(files, max_bytes=1000) as here:
        assert [file.video_id for file in here] == ["a", "b", "d"]
        assert here[2] == files[3]
        assert sorted(copies(spools)) == [file.path for file in here[:2]]
    assert spools() == []
    with pytest.raises(StoreError, match="raise the limit"), local_copies(files, max_bytes=100):
        pass


def test_the_next_video_is_fetched_while_one_is_read(url):
    upload(url, **{"a.mp4": b"1", "b.mp4": b"2"})
    with closing(Prefetcher()) as spool:
        first, second = spool.ahead(find_videos(url).videos, FREE)
        first.wait()
        assert second._copying.result(timeout=30).read_bytes() == b"2"


def test_a_video_claimed_by_another_run_is_not_prefetched(url, spools):
    upload(url, **{"a.mp4": b"1"})
    with closing(Prefetcher()) as spool:
        (video,) = spool.ahead(find_videos(url).videos, lambda file: False)
        assert video._copying.result(timeout=30) is None
        assert copies(spools) == []
        assert video.wait().read_bytes() == b"1"


def test_a_released_video_does_not_wait_for_later_ones(url):
    upload(url, **{"a.mp4": b"x" * 600, "b.mp4": b"x" * 600})

    def free_after(file):
        return file.video_id == "b"

    with closing(Prefetcher(max_bytes=1000)) as spool:
        first, second = spool.ahead(find_videos(url).videos, free_after)
        assert second._copying.result(timeout=30) is not None
        alarm = threading.Timer(10, spool.close)  # the test must end even if close is not enough
        alarm.start()
        assert first.wait().read_bytes() == b"x" * 600
        alarm.cancel()


@pytest.mark.parametrize(
    ("happens", "problem"),
    [
        (lambda url: fsspec.filesystem("memory").rm(f"{url}/a.mp4"), "has been deleted since the folder was listed"),
        (lambda url: upload(url, **{"a.mp4": b"others"}), "has been replaced since the folder was listed"),
    ],
)
def test_a_file_that_changed_since_the_listing_is_an_error(url, spools, happens, problem):
    upload(url, **{"a.mp4": b"1"})
    (file,) = find_videos(url).videos
    happens(url)
    with closing(Prefetcher()) as spool:
        (video,) = spool.ahead([file], FREE)
        with pytest.raises(StoreError, match=problem):
            video.wait()
        assert copies(spools) == []


def test_a_video_larger_than_the_spool_is_refused_with_the_remedy(url):
    upload(url, **{"a.mp4": b"x" * 2000})
    with closing(Prefetcher(max_bytes=1000)) as spool:
        (video,) = spool.ahead(find_videos(url).videos, FREE)
        with pytest.raises(StoreError, match=r"raise the limit \(--spool-gb\)"):
            video.wait()


def test_closing_ends_threads_that_wait_for_space(url, spools):
    upload(url, **{"a.mp4": b"x" * 600, "b.mp4": b"x" * 600})
    spool = Prefetcher(max_bytes=1000)
    first, second = spool.ahead(find_videos(url).videos, FREE)
    first.wait()
    threading.Timer(0.05, spool.close).start()
    with pytest.raises(StoreError, match="the run ended before it was fetched"):
        second.wait()
    spool.close()
    assert spools() == []


def test_copies_of_killed_processes_are_removed_and_those_in_use_stay(url, spools, tmp_path):
    upload(url, **{"a.mp4": b"1"})
    left = tmp_path / "arabesque-spool-killed"
    left.mkdir()
    (left / "lock").touch()
    (left / "0.mp4").write_bytes(b"half")
    with closing(Prefetcher()) as living, closing(Prefetcher()) as another:
        for spool in (living, another):
            (video,) = spool.ahead(find_videos(url).videos, FREE)
            video.wait()
        assert not left.exists()
        assert len(spools()) == 2


def test_copies_leave_nothing_in_the_metadata_cache(url, tmp_path):
    upload(url, **{"a.mp4": b"1"})
    files = find_videos(url).videos
    cache = MetadataCache(tmp_path / "cache", settled_ns=0)
    with closing(Prefetcher()) as spool:
        (video,) = spool.ahead(files, FREE)
        path = video.wait()
        cache.keep(path, state_of(path), read_content(path))
        assert cache.content(path) is None
    assert cache.durations_s(files) == {}
    cache.close()
