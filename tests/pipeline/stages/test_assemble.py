"""Assembly of segments from chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from fakes import PLAIN, probe, stream, video

from arabesque.extractors.protocol import AudioNeed
from arabesque.manifests.streams import Sampling
from arabesque.pipeline.decoding.audio_reader import AudioChunk
from arabesque.pipeline.items import PreprocessedChunk, SegmentTask, VideoEnd
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.records import AudioTrack, Hole
from arabesque.pipeline.stages.assemble import SegmentBuilder
from arabesque.pipeline.stages.waveforms import WaveformCursor


def window(plan, frames=(), samples=None, start_s=0.0):
    """Return a chunk with frames of 6 × 8 pixels whose brightness is their number, and audio at 1 kHz."""
    indices = np.array(frames, np.int64)
    pictures = torch.tensor(frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 6, 8)
    audio = None if samples is None else AudioChunk(start_s, 1000, samples[None], last=False)
    return PreprocessedChunk(plan, dict([(PLAIN, (indices, pictures))] if frames else []), audio)


def segments(items):
    return [item.segment for item in items if isinstance(item, SegmentTask)]


def test_a_segment_is_emitted_with_its_last_frame():
    plan, _ = plan_video(video(num_frames=10), [stream(length=4)], {})
    assembler = SegmentBuilder()
    assert segments(assembler(window(plan, (0, 1, 2)))) == []
    (first,) = segments(assembler(window(plan, (3, 4))))
    assert first.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert first.frame_times_s == (0.0, 0.1, 0.2, 0.3)
    assert first.blank_frames == ()


def test_streams_with_the_same_frames_share_them_and_intermediate_results():
    streams = [stream("one", length=4), stream("other", length=4), stream("longer", length=6)]
    plan, _ = plan_video(video(num_frames=12), streams, {})
    one, second, other, _, longer = segments(SegmentBuilder()(window(plan, tuple(range(10)))))
    assert one.frames is other.frames
    assert one.shared.once("sum", lambda: 1) == other.shared.once("sum", lambda: 2) == 1
    assert [each.shared.once("sum", lambda: 3) for each in (second, longer)] == [3, 3]


def test_a_blank_frame_is_black_and_marked_and_delays_no_segment():
    fake = stream()
    quirks = {"fps": 5.0, "frame_choice": "integer-stride", "zero_last_frame": True}
    sampling = Sampling(**{**fake.spec.sampling.model_dump(), **quirks, "frames_per_segment": 3, "frames_per_step": 3})
    strided = replace(fake, spec=fake.spec.model_copy(update={"sampling": sampling}))
    plan, _ = plan_video(video(num_frames=5), [strided], {})
    (segment,) = segments(SegmentBuilder()(window(plan, (1, 3))))
    assert segment.frames[:, 0, 0, 0].tolist() == [1, 3, 0]
    assert segment.blank_frames == (2,)
    assert segment.frame_times_s == tuple(plan.video.metadata.frame_times_s[[1, 3, 4]])
    assert (segment.start_s, segment.end_s) == (0.1, 0.5)


def test_only_frames_of_started_segments_are_kept_without_their_chunks():
    """A stream of all frames and one of every fourth share pictures; each keeps only the frames that it needs."""
    streams = [stream("every", length=2), stream("fourth", length=6, fps=2.5)]
    plan, _ = plan_video(video(num_frames=72), streams, {})
    assembler = SegmentBuilder()
    for newest in range(6, 60, 7):
        list(assembler(window(plan, tuple(range(newest - 6, newest + 1)))))
        (assembly,) = assembler.videos.values()
        kept = assembly._frames[PLAIN]
        waiting = set(range(newest // 24 * 24, newest + 1, 4)) if newest % 24 < 20 else set()
        assert kept.keys() == waiting | ({newest} if newest % 2 == 0 else set())
        storages = {frame.untyped_storage().data_ptr(): frame.untyped_storage().nbytes() for frame in kept.values()}
        assert sum(storages.values()) <= 2 * len(kept) * 3 * 6 * 8


def listening(windows, remove_mean=False):
    """A stream of two segments, .4 s each, over a track that begins .1 s late."""
    track = AudioTrack(1000, 1, 0.1, None)
    need = AudioNeed(1000, windows=windows, remove_mean=remove_mean)
    facts = {"metadata": probe(10, audio=track)}
    plan, _ = plan_video(replace(video(), **facts), [stream("ear", audio=need, frames=None)], {})
    return plan


def test_an_interval_is_emitted_with_its_last_sample_and_an_equal_share_with_the_tracks():
    ramp = np.arange(700, dtype=np.float32)
    for windows, early, late in (("interval", 1, [-100, 300]), ("equal-split", 0, [0, 350])):
        plan = listening(windows)
        assembler = SegmentBuilder()
        first = segments(assembler(window(plan, samples=ramp[:500], start_s=0.1)))
        rest = segments(assembler(window(plan, samples=ramp[500:], start_s=0.6)))
        end = segments(assembler(VideoEnd(plan, frames_delivered=10, decode_s=0.0)))
        assert len(first) == early
        parts = [*first, *rest, *end]
        assert [(part.start_s, part.end_s) for part in parts] == [(0.0, 0.4), (0.4, 0.8)]
        starts = [int(part.waveform[100]) - 100 for part in parts]
        assert starts == late


def test_a_truncated_track_has_no_equal_shares():
    plan = listening("equal-split")
    assembler = SegmentBuilder()
    list(assembler(window(plan, samples=np.ones(500, np.float32), start_s=0.1)))
    (end,) = assembler(
        VideoEnd(plan, frames_delivered=10, decode_s=0.0, audio_holes=(Hole(0.6, 1.0, "the file ends"),))
    )
    assert isinstance(end, VideoEnd)
    assert end.segments_sent == {}


def test_a_lack_of_memory_fails_one_video(monkeypatch):
    """A video that needs too much memory does not affect the other videos of the run."""
    ear = [stream("ear", audio=AudioNeed(8000), frames=None)]
    track = AudioTrack(8000, 1, 0.0, 1.0)
    plans = [plan_video(video(name, audio=track), ear, {})[0] for name in ("large", "small")]

    def refuse(cursor: WaveformCursor, samples: np.ndarray) -> None:
        raise MemoryError("Unable to allocate 5.3 GiB")

    assemble = SegmentBuilder()
    chunk = AudioChunk(0.0, 8000, np.zeros((1, 8000), np.float32), last=True)
    with monkeypatch.context() as patch:
        patch.setattr(WaveformCursor, "push", refuse)
        assert list(assemble(PreprocessedChunk(plans[0], {}, chunk))) == []
    [end] = assemble(VideoEnd(plans[0], frames_delivered=10, decode_s=0.0))
    assert "out of memory" in end.error
    assert end.transient
    assert len(list(assemble(PreprocessedChunk(plans[1], {}, chunk)))) == 2
    [end] = assemble(VideoEnd(plans[1], frames_delivered=10, decode_s=0.0))
    assert not end.error
