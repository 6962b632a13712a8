"""Manifests of videos that need not be there, for tests of what annotations say of them."""

from __future__ import annotations

from collections.abc import Mapping

from framefeed.manifest import Manifest
from framefeed_bench.pairs import absent_video


def manifest_of(durations_s: Mapping[str, float], *, identity: str = "v1-test") -> Manifest:
    """A manifest of videos of these names and lengths."""
    return Manifest(
        videos={name: absent_video(name, length_s) for name, length_s in durations_s.items()}, identity=identity
    )
