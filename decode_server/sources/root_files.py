"""The media files of a root and the videos they belong to: a chunk by its folder and number, any other file by itself.

It reads no file, and knows of the folder tree only what a walk found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from decode_server.sources.file_names import as_path, video_names


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """One media file: its path below the root, the video it belongs to, and its start in that if it is a chunk."""

    path: str
    video: str
    start_s: float
    chunk: bool

    @property
    def owner(self) -> str:
        """What its video is called after: itself, or the folder of the chunks."""
        return owner_of(self.path)


def owner_of(path: str) -> str:
    """What the video of a media file is called after: VIDEO.mp4 of the chunk VIDEO.mp4/15.mp4, else the file itself."""
    below = PurePosixPath(path)
    is_chunk = below.parent.suffix == below.suffix != "" and below.stem.isdecimal()
    return str(below.parent) if is_chunk else path


def root_files(paths: Sequence[str], *, named: Mapping[str, str]) -> tuple[list[MediaFile], dict[str, str]]:
    """The media files among the paths that a walk found, and why others are none. `named` is what an earlier index
    called the video of each path, as text: that name stays.
    """
    given = {owner_of(as_path(path)): video for path, video in named.items()}
    names = video_names(list(dict.fromkeys(map(owner_of, paths))), given=given)
    files, refused = [], {}
    for path in paths:
        owner = owner_of(path)
        if owner not in names:
            refused[path] = "its video would be called as another one is; wanted another name of the file"
            continue
        chunk = owner != path
        start_s = float(PurePosixPath(path).stem) if chunk else 0.0
        files.append(MediaFile(path=path, video=names[owner], start_s=start_s, chunk=chunk))
    return files, refused
