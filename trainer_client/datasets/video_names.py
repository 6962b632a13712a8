"""Finds the videos that annotations name in a manifest, whose names have other folders and no endings. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from framefeed.errors import BadInput
from framefeed.show_value import show_value

_ENDINGS = frozenset({"mp4", "avi", "mkv", "webm", "mov", "mpg", "mpeg", "m4v", "ts", "flv", "wmv"})


class VideoNames:
    """The videos of a manifest by what annotations may call them.

    A name is a video's if they are equal; or without its ending, and without as few of the folders before it as it
    takes: /data/k400/train/abseiling/a.mp4 is train/abseiling/a, or else abseiling/a, or else a. And if that finds
    none, the one video that has the same last part, wherever it lies: an Ego4D uid is v2/uid.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names if isinstance(names, frozenset | set) else frozenset(names)
        self._bare: dict[str, str | None] = {}  # without the ending; None: several
        self._last: dict[str, str | None] = {}  # the last part of that
        for name in self._names:
            bare = without_ending(name)
            self._bare[bare] = None if bare in self._bare else name
            last = bare.rpartition("/")[2]
            self._last[last] = None if last in self._last else name

    def find(self, reference: str) -> str | None:
        """The video that is meant; None if there is none, or if it may be one of several."""
        parts = [part for part in reference.split("/") if part not in ("", ".")]
        for first in range(len(parts)):
            name = "/".join(parts[first:])
            if name in self._names:
                return name
            bare = self._bare.get(without_ending(name))
            if bare is not None:
                return bare
        return self._last.get(without_ending(parts[-1])) if parts else None

    def find_all(self, references: Sequence[str], *, what: str) -> list[str | None]:
        """The video of each name. Raises BadInput where two names would be one video."""
        found = [self.find(reference) for reference in references]
        owners: dict[str, str] = {}
        for reference, video in zip(references, found, strict=True):
            if video is None:
                continue
            other = owners.setdefault(video, reference)
            if without_ending(other) != without_ending(reference):
                raise BadInput(
                    f"{what} names {show_value(other)} and {show_value(reference)}, and of both only "
                    f"{show_value(video)} is in the manifest; wanted names that tell videos apart"
                )
        return found


def without_ending(name: str) -> str:
    """A name without the ending of a video file; what else has a dot keeps it."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and ending.lower() in _ENDINGS else name
