"""A file served as it is, and from its chunks: the picture on show at any instant, read from its pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decode_server.chunking.profiles import profile_named
from decode_server.chunking.source import SourceVideo
from decode_server.chunking.transcode import ChunkRecord, ChunkSettings, chunk_video
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.media.media_use import MediaUse
from decode_server.media.picture import PictureFilter
from framefeed.crops import WholeFrame
from framefeed.request import ClipRequest, PixelFormat
from framefeed.sampling import AtSeconds, Segments
from tests.barred import Pixels, read_picture

_INSTANTS = 20  # of a request


@dataclass(frozen=True, slots=True)
class Shown:
    """The picture on show at an instant, and since when it is."""

    at_s: float
    since_s: float
    rgb: Pixels


def as_it_is(source: Path, folder: Path) -> Path:
    """A root with a link to the file, as video `v`, indexed."""
    folder.mkdir(parents=True)
    (folder / f"v{source.suffix}").write_bytes(source.read_bytes())
    build_index(folder)
    return folder


def chunked(source: Path, folder: Path, *, settings: ChunkSettings | None = None) -> tuple[Path, ChunkRecord]:
    """A root with the file's chunks, as video `v`, indexed; and what was said about it."""
    settings = settings or ChunkSettings(profile=profile_named("archive"))
    record = chunk_video(
        source, folder / "v.mp4", staging=folder.parent / f"{folder.name}_parts", settings=settings,
        on_bytes=lambda _: None,
    )  # fmt: skip
    build_index(folder)
    return folder, record


def duration_s(root: Path) -> float:
    """How long video `v` lasts."""
    with closing(Library(root)) as library:
        return library.entry("v").duration_s


def shown_at(root: Path, instants_s: Sequence[float], *, pixel_format: PixelFormat = "rgb24") -> Iterator[Shown]:
    """What video `v` shows at each instant, at 192x144."""
    with closing(Library(root)) as library, closing(Engine(library)) as engine:
        end_s = library.entry("v").duration_s
        for at_s in instants_s:
            request = ClipRequest(
                video="v", start_s=at_s, end_s=min(at_s + 1e-4, end_s), sampling=Segments(frames=1), crop=WholeFrame(),
                width_px=192, height_px=144, pixel_format=pixel_format,
            )  # fmt: skip
            out = np.empty(request.shape, np.uint8)
            info = engine.decode(request, out)
            yield Shown(at_s, info.pts_s[0], out[0])


def shown_at_each(root: Path, instants_s: Sequence[float]) -> Iterator[Shown]:
    """The same of many instants, in order, by few requests of many frames."""
    with closing(Library(root)) as library, closing(Engine(library)) as engine:
        for first in range(0, len(instants_s), _INSTANTS):
            some_s = instants_s[first : first + _INSTANTS]
            start_s, end_s = some_s[0], min(some_s[-1] + 1e-4, library.entry("v").duration_s)
            request = ClipRequest(
                video="v", start_s=start_s, end_s=end_s, crop=WholeFrame(), width_px=192, height_px=144,
                sampling=AtSeconds(offsets_s=tuple(at_s - start_s for at_s in some_s)),
            )  # fmt: skip
            info = engine.decode(request, out := np.empty(request.shape, np.uint8))
            yield from map(Shown, some_s, info.pts_s, out)


def decoded(path: Path, *, off: float = 12) -> tuple[list[tuple[float, int]], MediaUse]:
    """(time, number) of each frame as the chunker sees it, its colours checked, and what was said."""
    seen = []
    with SourceVideo(path) as source:
        filters: dict[object, PictureFilter] = {}
        for timed in source.frames():
            picture = timed.picture
            assert picture is not None
            if picture not in filters:
                filters[picture] = PictureFilter(
                    picture, time_base=source.timeline.time_base, short_side_px=120, pix_fmt="yuv420p",
                    like=source.timeline.main_picture,
                )  # fmt: skip
            shown = filters[picture].apply(timed.frame)
            rgb = shown.reformat(format="rgb24", src_colorspace=shown.colorspace).to_ndarray()
            number, worst = read_picture(np.asarray(rgb))
            assert worst < off, (number, worst, str(picture))
            seen.append((timed.ticks / source.ticks_per_s, number))
        return seen, source.use
