"""The verb `show`: what a request gives, drawn beside the frames that it comes from, as a contact sheet or a video.

    framefeed show ROOT --video P01/P01_01 --start-s 12 --end-s 14 --seed 7 --out clip.png
    framefeed show ROOT --samples train.jsonl --index 41307 --run-seed 0 --epoch 3     # the clip that training got
    framefeed show ROOT --requests batch.json --out batch.mp4
    framefeed show --run runs/mae --step 41307         # the batch that a run trained on: the trainer's verb, "show run"

It decodes with the engine that serves, in this process; it decides nothing about the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from msgspec.structs import replace

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.show.show_request import build_request, checked_policy, read_requests, sample_at
from framefeed.cli.drawing import Picture, draw_box, draw_text, stack
from framefeed.cli.picture_files import write_mp4, write_png
from framefeed.cli.verbs import Verb, parse_options, parse_verb
from framefeed.clip import Clip
from framefeed.crops import Box, Crop, WholeFrame
from framefeed.draws import clip_seed
from framefeed.errors import BadInput
from framefeed.manifest import check_indexed
from framefeed.nearest_name import nearest_name
from framefeed.new_file import check_place
from framefeed.ranges import MAX_SECONDS
from framefeed.request import MAX_SIDE_PX, ClipRequest, Interpolation
from framefeed.sampling import Sampling
from framefeed.show_value import show_value

_COLUMNS = 8
_SEED = (1 << 64) - 1
_LIMITS = (
    ("tile_px", 16, 2000),
    ("fps", 0.1, 240),
    ("hflip", 0, 1),
    ("size_px", 2, MAX_SIDE_PX),
    ("start_s", 0, MAX_SECONDS),
    ("end_s", 0, MAX_SECONDS),
    ("seed", 0, _SEED),
    ("run_seed", 0, _SEED),
    ("epoch", 0, _SEED),
    ("index", 0, _SEED),
)
_MOST_NAMES = 50_000  # that are looked through for the nearest: a second


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw clips beside the frames they come from, as PNG or MP4.

    With --run DIR --step N in the place of ROOT: the batch that a run trained on (framefeed show run --help).
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of chunks or videos, indexed."""
    index_folder: Path | None = None
    """Folder of the manifest when it is not ROOT."""
    video: str | None = None
    """Name of the video in the manifest. Default: the first."""
    start_s: float = 0.0
    """Start of the span, in seconds of the video."""
    end_s: float | None = None
    """End of the span. Default: the end of the video."""
    sampling: str = "segments:frames=8"
    """Sampling policy, NAME:field=value,…, such as dense:frames=16,stride=4 or published:rule=avion_sparse,frames=4."""
    crop: str = "random_resized"
    """Crop policy, such as resized_centre, view:view=2, letterbox or random_resized:scale=[0.5,1.0]."""
    size_px: tuple[int, int] = (224, 224)
    """Width and height of the clip."""
    interpolation: Interpolation = "bilinear"
    """Filter that scales."""
    hflip: float = 0.0
    """Probability that the clip is mirrored."""
    seed: int = 0
    """The clip's own seed; given by --index with --run-seed and --epoch."""
    samples: Path | None = None
    """A dataset as JSON lines with video, start_s and end_s, of which --index is shown."""
    index: int | None = None
    """Index into the dataset: the seed is that of this sample, in this epoch of this run."""
    epoch: int = 0
    """Epoch of --index."""
    run_seed: int = 0
    """Seed of the run of --index."""
    requests: Path | None = None
    """A batch: a JSON list of whole requests as the wire spells them, in the place of all options above."""
    out: Path = Path("show.png")
    """File to write, .png or .mp4; an existing one is replaced."""
    tile_px: int = 180
    """Height of a source frame in it."""
    fps: float = 4.0
    """Frames of the clip shown in a second of an MP4."""

    @classmethod
    def parse(cls, args: list[str]) -> Verb:
        """The verb with its options; with --run among them the trainer's. Raises BadInput for what does not parse."""
        words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--run=") else [arg])]
        if "--run" not in words:
            return parse_options(cls, args, name="show")
        words.remove("--run")
        (of_a_run,) = entry_points(group="framefeed.verbs", name="show run")
        return parse_verb(of_a_run, words)

    def run(self) -> None:
        """Decode and write. Raises BadInput for options that say no clip, and what the engine raises for the clip."""
        if self.out.suffix not in (".png", ".mp4"):
            raise BadInput(f"is {self.out}, wanted a file ending in .png or .mp4", of="show", field="out")
        check_place(self.out, option="--out")
        self._check_numbers()
        check_indexed(self.index_folder or self.root, option="--index-folder")
        with (
            closing(Library(self.root, index_folder=self.index_folder, follow_links=True)) as library,
            closing(Engine(library)) as engine,
        ):
            shown = [_decode(engine, library, request, self.tile_px) for request in self.wanted(library)]
            print(f"data set {library.identity or 'unknown: index the root again'}")
        for item in shown:
            print(item.describe())
        if self.out.suffix == ".png":
            write_png(self.out, stack([_sheet(item) for item in shown], axis=0, gap_px=16))
        else:
            write_mp4(self.out, [frame for item in shown for frame in _columns(item, axis=1)], fps=self.fps)
        print(f"wrote {self.out}")

    def _check_numbers(self) -> None:
        for name, least, most in _LIMITS:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else () if value is None else (value,):
                if not least <= number <= most:
                    raise BadInput(f"is {number}, wanted {least} to {most}", of="show", field=name)

    def wanted(self, library: Library) -> list[ClipRequest]:
        """The requests that the options say."""
        if self.requests is not None:
            return read_requests(self.requests)
        if self.samples is not None and self.index is None:
            raise BadInput("show: --samples without --index; wanted which of them to show")
        if self.samples is None and self.index is not None:
            raise BadInput(
                f"show: --index is {self.index} without --samples; wanted the dataset that it is an index of"
            )
        body: dict[str, Any]
        if self.samples is not None and self.index is not None:
            body = sample_at(self.samples, self.index)
        else:
            video = self.video or next(iter(library.manifest.videos))
            if video not in library.manifest.videos:
                raise BadInput(f"show: --video is {show_value(video)}, {_nearest(video, library)}")
            end_s = self._end_s(video, library.entry(video).duration_s)
            body = {"video": video, "start_s": self.start_s, "end_s": end_s}
        seed = self.seed if self.index is None else clip_seed(self.run_seed, epoch=self.epoch, index=self.index)
        body |= {
            "sampling": checked_policy(self.sampling, Sampling, field="sampling"),
            "crop": checked_policy(self.crop, Crop, field="crop"),
            "width_px": self.size_px[0],
            "height_px": self.size_px[1],
            "interpolation": self.interpolation,
            "hflip_probability": self.hflip,
            "seed": seed,
        }
        return [build_request(body, where="show")]

    def _end_s(self, video: str, duration_s: float) -> float:
        """Where the span ends. Raises BadInput for one that the video has not."""
        has = f"{show_value(video)} is {duration_s:g} s long"
        if self.start_s >= duration_s:
            raise BadInput(f"is {self.start_s:g}, wanted less than {duration_s:g}: {has}", of="show", field="start_s")
        if self.end_s is None:
            return duration_s
        if not self.start_s < self.end_s:
            wanted = f"wanted more than --start-s, which is {self.start_s:g}: {has}"
            raise BadInput(f"is {self.end_s:g}, {wanted}", of="show", field="end_s")
        return self.end_s


def _nearest(video: str, library: Library) -> str:
    """What is wanted in the place of a name that no video has."""
    names = library.manifest.videos
    near = nearest_name(video, islice(names, _MOST_NAMES), cutoff=0.0)
    return f"wanted one of the manifest's {len(names)} videos; the nearest is {show_value(near)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A clip and the whole frames it was cut from, both RGB; `box` is the clip's in these frames."""

    request: ClipRequest
    clip: Clip
    source: Clip
    box: Box

    def describe(self) -> str:
        """One line for people."""
        request, info = self.request, self.clip.info
        times = " ".join("pad" if padded else f"{t:.3f}" for t, padded in _times(self.clip))
        return (
            f"{request.video} [{request.start_s:g}, {request.end_s:g}) s, box {info.box}"
            f"{', mirrored' if info.flipped else ''}, {request.width_px}x{request.height_px}, seed {request.seed}, "
            f"frames at {times} s"
        )


def _decode(engine: Engine, library: Library, request: ClipRequest, tile_px: int) -> _Shown:
    """Decode a clip, and the whole frames at its times `tile_px` high; both in RGB, whatever the request's format."""
    clip = _clip(engine, replace(request, pixel_format="rgb24"))
    entry = library.entry(request.video)
    width_px = max(2 * round(entry.width_px * tile_px / entry.height_px / 2), 2)
    height_px = max(tile_px & ~1, 2)
    whole = replace(
        request, pixel_format="rgb24", crop=WholeFrame(), width_px=width_px, height_px=height_px, hflip_probability=0.0
    )
    source = _clip(engine, whole)
    frame = source.info.box
    x_scale, y_scale = width_px / frame.width_px, height_px / frame.height_px
    box, cut = clip.info.box, clip.info.box
    box = Box(
        x_px=min(round(cut.x_px * x_scale), width_px - 2),
        y_px=min(round(cut.y_px * y_scale), height_px - 2),
        width_px=max(round(cut.width_px * x_scale), 2),
        height_px=max(round(cut.height_px * y_scale), 2),
    )
    return _Shown(request=request, clip=clip, source=source, box=box)


def _clip(engine: Engine, request: ClipRequest) -> Clip:
    pixels = np.empty(request.shape, np.uint8)
    return Clip(pixels=pixels, info=engine.decode(request, pixels))


def _times(clip: Clip) -> Iterator[tuple[float, bool]]:
    padding = clip.info.padding or (False,) * len(clip.info.pts_s)
    return zip(clip.info.pts_s, padding, strict=True)


def _columns(shown: _Shown, *, axis: int) -> list[Picture]:
    """For each frame of the clip: its source with box and time, and the frame, below (axis 0) or beside it (axis 1)."""
    columns = []
    pairs = zip(shown.source.pixels, shown.clip.pixels, _times(shown.clip), strict=True)
    for number, (source, frame, (at_s, padded)) in enumerate(pairs):
        tile = source.copy()
        if not padded:
            draw_box(tile, shown.box)
        draw_text(tile, f"#{number} pad" if padded else f"#{number} {at_s:.3f} s")
        columns.append(stack([tile, frame], axis=axis))
    return columns


def _sheet(shown: _Shown) -> Picture:
    """Columns of a clip in lines of eight, under a line that says span, box and size."""
    columns = _columns(shown, axis=0)
    lines = [stack(columns[i : i + _COLUMNS], axis=1) for i in range(0, len(columns), _COLUMNS)]
    request, info = shown.request, shown.clip.info
    text = f"[{request.start_s:.3f}, {request.end_s:.3f}) s  {info.box}  {request.width_px}x{request.height_px}"
    head = np.zeros((18, lines[0].shape[1], 3), np.uint8)
    draw_text(head, text)
    return stack([head, *lines], axis=0)
