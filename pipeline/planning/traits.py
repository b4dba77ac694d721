"""Properties of videos that a run reports in one message for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import closing

from ...manifests.streams import StreamSpec
from ..items import Event, Notice, Trait, VideoTraits
from ..records import VideoMetadata


def traits_of(metadata: VideoMetadata) -> tuple[Trait, ...]:
    """Return the properties of a video that may need the user's attention."""
    traits: list[Trait] = []
    if metadata.num_video_tracks > 1 or metadata.num_audio_tracks > 1:
        traits.append("several-tracks")
    if metadata.field_order != "progressive":
        traits.append("interlaced")
    if metadata.display_px != (metadata.height_px, metadata.width_px):
        traits.append("non-square-pixels")
    return tuple(traits)


def summarized(events: Generator[Event, None, None], specs: Mapping[str, StreamSpec]) -> Generator[Event, None, None]:
    """Yield the events of a run, with one notice for each trait at the end in place of the traits of each video."""
    videos: defaultdict[Trait, set[str]] = defaultdict(set)
    with closing(events):
        for event in events:
            if isinstance(event, VideoTraits):
                for trait in event.traits:
                    videos[trait].add(event.video_id)
            else:
                yield event
    for trait, ids in sorted(videos.items()):
        example = min(ids)
        count = f"{len(ids)} videos, for example {example!r}," if len(ids) > 1 else f"1 video, {example!r},"
        yield Notice(f"{count} {_REPORTS[trait](len(ids) > 1, specs)}")


def _several_tracks(is_plural: bool, specs: Mapping[str, StreamSpec]) -> str:
    have = "have" if is_plural else "has"
    return f"{have} several video or audio tracks; {_settings('audio_track', specs)} chose one of each"


def _interlaced(is_plural: bool, specs: Mapping[str, StreamSpec]) -> str:
    return f"{'are' if is_plural else 'is'} interlaced; the recipe sets {_settings('deinterlace', specs)}"


def _non_square_pixels(is_plural: bool, specs: Mapping[str, StreamSpec]) -> str:
    have = "have" if is_plural else "has"
    return f"{have} pixels that are not square; the recipe sets {_settings('pixel_aspect', specs)}"


_REPORTS = {
    "interlaced": _interlaced,
    "non-square-pixels": _non_square_pixels,
    "several-tracks": _several_tracks,
}


def _settings(field: str, specs: Mapping[str, StreamSpec]) -> str:
    """Return the values of a setting, with their streams if they differ: ``pixel_aspect = "display" (vst, ast)``."""
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for name, spec in specs.items():
        value = getattr(spec, field)
        streams[f'"{value}"' if isinstance(value, str) else str(value)].append(name)
    of = {value: "" if len(streams) == 1 else f" ({', '.join(names)})" for value, names in streams.items()}
    return " and ".join(f"{field} = {value}{names}" for value, names in of.items())
