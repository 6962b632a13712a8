"""Which files a chunking run takes, what their videos are called, and why others are left out; it opens no media.

A video's name is its path below the folder it was found in, without suffix unless two would be called the same. What
cannot be taken is a line in the result; only what the user typed himself is an error.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decode_server.chunking.transcode import CHUNK_EXTENSION, read_record, was_chunked
from decode_server.sources.file_names import fitting, for_people, spelled, stem_of, video_names
from decode_server.sources.walk import VIDEO_SUFFIXES, WalkRules, walk
from framefeed.errors import BadInput

_SUFFIX = f".{CHUNK_EXTENSION}"
_CHUNKS = "holds chunks that 'framefeed chunk' made; wanted the videos they were made from"


@dataclass(slots=True, kw_only=True)
class Sources:
    """Files to chunk by the name of their video, in name order; per path that is not taken, why; how many files of
    which suffix were passed over.
    """

    videos: dict[str, Path] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


def chunk_folder(root: Path, video: str) -> Path:
    """Where the chunks of a video lie."""
    return root / f"{video}{_SUFFIX}"


def find_videos(sources: Sequence[Path], root: Path | None, rules: WalkRules | None = None) -> Sources:
    """The videos of files, and of folders searched recursively; what lies in `root`, if any, is left out.

    Raises:
        BadInput: a source that is missing, holds no video, or is itself a tree of chunks.
    """
    if not sources:
        raise BadInput("no source given; wanted video files or folders")
    rules = rules or WalkRules()
    found = Sources()
    for source in sources:
        try:
            source.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"source {source} does not exist") from None
        except OSError as error:  # which says nothing of whether it does
            raise BadInput(f"source {source} cannot be looked at: {error.strerror}") from None
        if source.is_dir():
            _search(source, root, rules, found)
        else:
            _take(found, {source.name: source}, root)
    _leave_out_nested(found)
    found.videos = dict(sorted(found.videos.items()))
    return found


def _search(source: Path, root: Path | None, rules: WalkRules, found: Sources) -> None:
    if root and source.resolve() == root.resolve():
        raise BadInput(f"source and root are the same folder {source}; wanted another --out")
    if was_chunked(source):
        raise BadInput(f"source {source} {_CHUNKS}")
    below_root = WalkRules(all_files=rules.all_files, follow_links=rules.follow_links, leave_out=root)
    try:
        tree = walk(source, below_root, skip_folder=lambda path: _CHUNKS if was_chunked(path) else "")
    except OSError as error:
        raise BadInput(f"source {source} cannot be read ({error.strerror})") from None
    if not tree.files:
        chunks = next((path for path, why in tree.refused.items() if why == _CHUNKS), None)
        if chunks is not None:
            raise BadInput(f"source {source} {_CHUNKS} (found {for_people(chunks)})")
        first = "".join(f"; {for_people(path)} {why}" for path, why in list(tree.refused.items())[:1])
        wanted = f"looked for {' '.join(sorted(VIDEO_SUFFIXES))}; --all-files takes all"
        raise BadInput(f"source {source} holds no video file ({wanted}){first}")
    found.refused |= {str(source / path): why for path, why in tree.refused.items()}
    found.ignored += tree.ignored
    _take(found, {path: source / path for path in tree.files}, root)


def _take(found: Sources, files: dict[str, Path], root: Path | None) -> None:
    """Add the files of one source under the names of their videos; a file that was found already is not added twice."""
    given = {path: name for path, file in files.items() if (name := _name_before(path, file, root))}
    names = video_names(list(files), given=given)
    for path, file in files.items():
        name = fitting(names[path], suffix=_SUFFIX) if path in names else ""
        other = found.videos.setdefault(name, file) if name else None
        if other is None or not _same(other, file):
            as_other = f"as {for_people(str(other))} is" if other else "as another one is"
            found.refused[str(file)] = f"its video would be called {name!r} {as_other}; rename it or chunk it apart"


def _name_before(path: str, file: Path, root: Path | None) -> str:
    """What the video of a file was called by an earlier run: that name stays, whatever lies beside the file now."""
    if root is None or not root.is_dir():
        return ""
    for name in (spelled(path), stem_of(path)):
        record = read_record(chunk_folder(root, fitting(name, suffix=_SUFFIX)))
        if record is not None and record.source == str(file):
            return name
    return ""


def _same(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _leave_out_nested(found: Sources) -> None:
    """Files whose chunks would lie in the folder of another video's chunks."""
    for name, file in list(found.videos.items()):
        for parent in Path(name).parents:
            owner = found.videos.get(stem_of(str(parent))) if parent.suffix == _SUFFIX else None
            if owner:
                why = f"would lie in the chunk folder of {for_people(str(owner))}; chunk them apart"
                found.refused[str(file)] = why
                found.videos.pop(name, None)
