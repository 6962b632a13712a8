"""Builds the manifest and the packet indices of a root: the verb `framefeed index`, and what `chunk` ends with.

The one place that lists directories. It re-encodes nothing and leaves media files as they are; files whose size and
time of change are those of the last index are not read again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from decode_server.indexing.probe import probe
from decode_server.indexing.sidecar import drop_sidecars
from decode_server.media.packet_index import PacketIndex, unpack_index
from framefeed.cli.parent_death import end_with_parent
from framefeed.errors import BadInput, FramefeedError
from framefeed.manifest import PACKETS_NAME, Manifest, Refusal, VideoEntry, read_manifest
from framefeed.new_file import NewFile, drop_leftovers
from framefeed.ranges import check_text
from framefeed.regular_file import read_regular

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
)
_PACKETS_BYTES = 1 << 36  # of all packet indices


@dataclass(frozen=True, kw_only=True)
class Index:
    """Build the packet index of chunk trees (ROOT/{video}.{ext}/{start}.{ext}) and folders of plain video files."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of chunk folders or video files, searched recursively."""
    to: Path | None = None
    """Folder for the manifest and the index when ROOT is not writable; default ROOT."""
    jobs: int = len(os.sched_getaffinity(0))
    """Files read at once."""
    check: bool = False
    """Decode all of each file three times, to find damage that its codec does not report (HEVC, VP8): for files that
    may have rotted. Without it only damage that shows in decoding is refused, when a clip is asked for."""

    def run(self) -> None:
        manifest = build_index(self.root, index_folder=self.to, jobs=self.jobs, check=self.check)
        console = Console()
        for refusal in manifest.refused:
            console.print(f"refused  {refusal.path}: {refusal.reason}", markup=False, highlight=False, soft_wrap=True)
        hours = sum(entry.duration_s for entry in manifest.videos.values()) / 3600
        chunks = sum(len(entry.chunk_start_s) for entry in manifest.videos.values())
        console.print(f"indexed {len(manifest.videos)} videos, {chunks} files, {hours:.2f} h in {self.to or self.root}")
        console.print(f"data set {manifest.identity}", highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """One media file: the video it belongs to, and its start in it if it is a chunk."""

    path: str
    video: str
    start_s: float
    chunk: bool


def build_index(root: Path, *, index_folder: Path | None = None, jobs: int = 1, check: bool = False) -> Manifest:
    """Index every media file under `root` and write manifest and packet records, atomically, into `index_folder`.

    Shows a progress bar on a terminal. Returns the manifest. Raises BadInput when the root is missing or holds no file
    that can be served, or the folder cannot be written to.
    """
    if not root.is_dir():
        raise BadInput(f"root {root} is not a folder; wanted a folder of chunk folders or video files")
    folder = index_folder or root
    _require_writable(folder, root)
    files = _find_files(root)
    if not files:
        raise BadInput(f"root {root} holds no video file; wanted files ending in {' '.join(sorted(VIDEO_SUFFIXES))}")
    known = _known_records(root, folder, check=check)
    fresh = [file for file in files if file.path not in known]
    refused: list[Refusal] = []
    for file, outcome in zip(fresh, _probe_all(partial(_probe_one, root, folder, check), fresh, jobs), strict=True):
        if isinstance(outcome, PacketIndex):
            known[file.path] = outcome
        else:
            refused.append(Refusal(path=os.fsencode(file.path).decode(errors="backslashreplace"), reason=outcome))
    manifest = _write(folder, [(file, known[file.path]) for file in files if file.path in known], refused)
    if not manifest.videos:
        raise BadInput(f"root {root}: none of its {len(files)} files can be served; first: {refused[0].reason}")
    return manifest


def _require_writable(folder: Path, root: Path) -> None:
    """Make the folder if it is not there. Raises BadInput, before any file is read, where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        NewFile(folder / PACKETS_NAME).close()
    except OSError as error:
        wanted = f"wanted --to FOLDER, one that can, as 'framefeed index {root} --to FOLDER'"
        raise BadInput(f"the index cannot be written to {folder} ({error.strerror}); {wanted}") from None


def _find_files(root: Path) -> list[_File]:
    """Media files in path order; names of plain files lose their suffix unless two would then be called the same."""
    found: list[tuple[PurePosixPath, str, float, bool]] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file_name in sorted(names):
            path = PurePosixPath(Path(folder, file_name).relative_to(root))
            if path.suffix.lower() in VIDEO_SUFFIXES and not file_name.startswith("."):
                parent = path.parent
                chunk = parent.suffix == path.suffix and path.stem.isdecimal()
                video = parent.with_suffix("") if chunk else path.with_suffix("")
                found.append((path, str(video), float(path.stem) if chunk else 0.0, chunk))
    owners: dict[str, set[str]] = {}
    for path, name, _, chunk in found:
        owners.setdefault(name, set()).add(str(path.parent if chunk else path))
    return [
        _File(
            path=str(path),
            video=name if len(owners[name]) == 1 else str(path.parent if chunk else path),
            start_s=start_s,
            chunk=chunk,
        )
        for path, name, start_s, chunk in found
    ]


def _known_records(root: Path, folder: Path, *, check: bool) -> dict[str, PacketIndex]:
    """Records of the last index whose files have not changed since; if `check`, of those that were checked."""
    known: dict[str, PacketIndex] = {}
    try:
        manifest = read_manifest(folder)
        records = read_regular(folder / PACKETS_NAME, limit_bytes=_PACKETS_BYTES)
    except (BadInput, OSError):
        return known
    for entry in manifest.videos.values():
        for offset, size in zip(entry.record_offset, entry.record_bytes, strict=True):
            try:
                index = unpack_index(records[offset : offset + size], where=f"{folder / PACKETS_NAME}:{offset}")
                status = (root / index.path).stat()
            except (FramefeedError, OSError):
                continue
            whole = (not index.sidecar or (folder / index.sidecar).is_file()) and (index.checked or not check)
            if whole and (status.st_size, status.st_mtime_ns) == (index.media_bytes, index.mtime_ns):
                known[index.path] = index
    return known


def _probe_all(
    probe_one: Callable[[_File], PacketIndex | str], files: list[_File], jobs: int
) -> Iterator[PacketIndex | str]:
    console = Console(stderr=True)
    bar = {"description": "indexing", "console": console, "total": len(files), "disable": not console.is_terminal}
    if jobs <= 1 or len(files) <= 1:
        yield from track(map(probe_one, files), **bar)  # type: ignore[arg-type]
        return
    with ProcessPoolExecutor(
        min(jobs, len(files)),
        mp_context=get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        outcomes = pool.map(probe_one, files, chunksize=4)
        yield from track(outcomes, **bar)  # type: ignore[arg-type]


def _probe_one(root: Path, folder: Path, check: bool, file: _File) -> PacketIndex | str:
    """The file's index, or the reason why it has none."""
    try:
        check_text("its name", file.path)
    except ValueError as error:
        return str(error)
    try:
        return probe(root / file.path, name=file.path, chunk=file.chunk, index_folder=folder, check=check)
    except FramefeedError as error:
        return str(error).removeprefix(f"{file.path}: ")


def _write(folder: Path, indexed: list[tuple[_File, PacketIndex]], refused: list[Refusal]) -> Manifest:
    """Write the packet records, then the manifest that points into them; sidecars of older versions go."""
    videos: dict[str, list[tuple[_File, PacketIndex, int, int]]] = {}
    with NewFile(folder / PACKETS_NAME) as new:
        for file, index in indexed:
            record = index.pack()
            videos.setdefault(file.video, []).append((file, index, new.file.tell(), len(record)))
            new.file.write(record)
        entries = {name: _entry(name, sorted(videos[name], key=lambda row: row[0].start_s)) for name in sorted(videos)}
        manifest = Manifest(videos=entries, refused=tuple(refused))
        identity = manifest.write(folder, just_before=new.take_place)
    drop_leftovers(folder)
    drop_sidecars(folder, keep={index.sidecar for _, index in indexed})
    return replace(manifest, identity=identity)


def _entry(name: str, rows: list[tuple[_File, PacketIndex, int, int]]) -> VideoEntry:
    last_file, last = rows[-1][0], rows[-1][1]
    duration_s = last_file.start_s + last.duration_s
    frames = sum(len(index.shown) for _, index, _, _ in rows)
    width_px, height_px = last.display_px
    return VideoEntry(
        video=name,
        codec=last.decoder,
        duration_s=duration_s,
        fps=frames / sum(index.duration_s for _, index, _, _ in rows),
        width_px=width_px,
        height_px=height_px,
        media_bytes=sum(index.media_bytes for _, index, _, _ in rows),
        chunk_start_s=tuple(file.start_s for file, _, _, _ in rows),
        record_offset=tuple(offset for _, _, offset, _ in rows),
        record_bytes=tuple(size for _, _, _, size in rows),
        record_digest=tuple(index.digest for _, index, _, _ in rows),
    )
