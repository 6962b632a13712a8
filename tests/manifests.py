"""Manifests of videos that need not be there, for tests of what annotations say of them."""

from __future__ import annotations

from collections.abc import Mapping

from framefeed.manifest import Manifest, VideoEntry


def manifest_of(durations_s: Mapping[str, float], *, identity: str = "v1-test") -> Manifest:
    """A manifest of videos of these names and lengths."""
    return Manifest(videos={name: _entry(name, length_s) for name, length_s in durations_s.items()}, identity=identity)


def _entry(name: str, duration_s: float) -> VideoEntry:
    return VideoEntry(
        video=name,
        codec="h264",
        duration_s=duration_s,
        fps=30.0,
        width_px=512,
        height_px=288,
        media_bytes=1,
        chunk_start_s=(0.0,),
        record_offset=(0,),
        record_bytes=(1,),
    )
