"""Makes short synthetic scenes that say what happens in them: one shape that moves and grows, with captions and labels.

Beside the videos lie train.jsonl, val.jsonl and test.jsonl, lines of video, start, end, text and label, which is the
direction. Combinations of shape, colour and direction in `test` are in no other split. Folders have other tables of the
same scenes: `captions` without labels; `shape`, `colour`, `speed` and `size` with theirs; `few`, every tenth scene;
`reversed`, played backwards with the direction that is seen then; `direction_still` and `speed_still`, of each scene
the frame half-way alone, in which nothing tells them. It knows nothing of data sets or models.
`python -m decode_server.chunking.synthetic_actions OUT` makes them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import tyro

from framefeed.errors import BadInput
from framefeed.new_file import NewFile, write_whole

Pixels = npt.NDArray[np.uint8]
Line = Mapping[str, object]

SCENE_S, FPS, SIDE_PX = 1, 18, 64  # 9 frames 2 apart fit
SHAPES = ("circle", "square", "triangle", "ring", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 40),
    "white": (235, 235, 235),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SPEEDS = {"slowly": 0.18, "steadily": 0.4, "fast": 0.8}  # of the side, in a scene
SIZES = {"grows": (0.25, 0.55), "shrinks": (0.55, 0.25)}  # of the side, first and last
_FRAMES = SCENE_S * FPS
_HALF_WAY = _FRAMES // 2
_UNSEEN = 3  # every so-manieth combination is in `test` alone
_RETRIEVED = 200  # captions that scoring has to tell from each other, no two equal
_FEW = 10  # every so-manieth scene is in `few`
_LABELS = ("shape", "colour", "speed", "size")  # that have folders of their names
_FOLDERS = (".", "captions", *_LABELS, "reversed", "direction_still", "speed_still")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What happens in a scene."""

    shape: str
    colour: str
    direction: str
    speed: str
    size: str

    @property
    def text(self) -> str:
        """Its caption."""
        return f"a {self.colour} {self.shape} moves {self.direction} {self.speed} and {self.size}"

    @property
    def is_unseen(self) -> bool:
        """Whether its combination of shape, colour and direction is left to `test`."""
        known = ((SHAPES, self.shape), (tuple(COLOURS), self.colour), (tuple(DIRECTIONS), self.direction))
        return sum((at + 1) * names.index(name) for at, (names, name) in enumerate(known)) % _UNSEEN == 0


ACTIONS = tuple(
    Action(shape=shape, colour=colour, direction=direction, speed=speed, size=size)
    for shape, colour, direction, speed, size in itertools.product(SHAPES, COLOURS, DIRECTIONS, SPEEDS, SIZES)
)


def make_actions(
    out: Path, *, train: int = 384, val: int = 96, test: int = 96, scenes_a_video: int = 16, seed: int = 0
) -> None:
    """Write so many scenes of a second each split into OUT, 64 x 64 pixels at 18 frames a second, and their tables.

    The files are a function of the arguments. Up to as many scenes as a split has actions, no two are of one. Blocks
    for some 6 ms a scene. Raises BadInput for counts that make none.
    """
    if min(train, val, test) < 0 or train < 1 or scenes_a_video < 1:
        raise BadInput(f"actions: {train}, {val} and {test} scenes, {scenes_a_video} a video, wanted at least one")
    seen = [action for action in ACTIONS if not action.is_unseen]
    unseen = [action for action in ACTIONS if action.is_unseen]
    for number, (split, count, choice) in enumerate(
        (("train", train, seen), ("val", val, seen), ("test", test, unseen))
    ):
        rng = np.random.Generator(np.random.Philox(key=(seed, number)))
        actions = [choice[at] for at in _even(rng, count, len(choice))]
        videos = _write_videos(out, split, actions, rng=rng, scenes=scenes_a_video)
        for folder, lines in _tables(actions, videos, scenes=scenes_a_video).items():
            if folder == "reversed" and split == "train":
                continue
            (out / folder).mkdir(parents=True, exist_ok=True)
            told = lines[:_RETRIEVED] if folder == "captions" and split != "train" else lines
            body = "".join(f"{json.dumps(line)}\n" for line in told)
            write_whole(out / folder / f"{split}.jsonl", body.encode())


def _tables(actions: Sequence[Action], videos: Sequence[str], *, scenes: int) -> dict[str, list[Line]]:
    """The lines of each folder's table."""
    tables: dict[str, list[Line]] = {folder: [] for folder in _FOLDERS}
    for number, action in enumerate(actions):
        video, at_s = videos[number // scenes], number % scenes * SCENE_S
        whole = {"video": video, "start": at_s, "end": at_s + SCENE_S}
        still = {"video": video, "start": at_s + _HALF_WAY / FPS, "end": at_s + (_HALF_WAY + 1) / FPS}
        tables["."].append({**whole, "text": action.text, "label": action.direction})
        tables["captions"].append({**whole, "text": action.text})
        for name in _LABELS:
            tables[name].append({**whole, "label": getattr(action, name)})
        tables["reversed"].append({**whole, "video": _reversed(video), "label": OPPOSITE[action.direction]})
        for name in ("direction", "speed"):
            tables[f"{name}_still"].append({**still, "label": getattr(action, name)})
    return tables | {"few": tables["."][::_FEW]}


def _even(rng: np.random.Generator, count: int, choices: int) -> list[int]:
    """So many of the choices, each as often as any other but one, in random order."""
    rounds = [rng.permutation(choices) for _ in range(-(-count // choices))]
    return [int(at) for at in np.concatenate(rounds)[:count]] if rounds else []


def _write_videos(
    out: Path, split: str, actions: Sequence[Action], *, rng: np.random.Generator, scenes: int
) -> list[str]:
    """Write the scenes, so many a video, those for scoring played backwards too; the videos' names."""
    out.mkdir(parents=True, exist_ok=True)
    names = []
    for first in range(0, len(actions), scenes):
        names.append(f"{split}_{first // scenes:04d}.mp4")
        chosen = [list(_pictures(action, rng)) for action in actions[first : first + scenes]]
        _write_video(out / names[-1], chosen)
        if split != "train":
            _write_video(out / _reversed(names[-1]), [pictures[::-1] for pictures in chosen])
    return names


def _reversed(name: str) -> str:
    """The video of which each scene is played backwards."""
    return f"{name.removesuffix('.mp4')}_reversed.mp4"


def _write_video(path: Path, scenes: Sequence[Sequence[Pixels]]) -> None:
    with NewFile(path) as new:
        with av.open(new.file, "w", format="mp4") as container:
            options = {"preset": "ultrafast", "crf": "12", "threads": "1", "g": str(_FRAMES)}
            stream = container.add_stream("libx264", rate=Fraction(FPS), options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width = stream.height = SIDE_PX
            stream.pix_fmt = "yuv420p"
            for picture in itertools.chain.from_iterable(scenes):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        new.take_place()


def _pictures(action: Action, rng: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a scene, uint8 (Y, X, 3): the shape passes the middle of its way, and its mean size, half-way."""
    ground = _ground(rng)
    step = np.array(DIRECTIONS[action.direction]) * SPEEDS[action.speed]
    middle = 0.5 + rng.uniform(-0.1, 0.1, 2)
    first, last = SIZES[action.size]
    for number in range(_FRAMES):
        share = number / _FRAMES
        centre = middle + step * (share - 0.5)
        mask = _mask(action.shape, centre, first + (last - first) * share)
        yield np.where(mask[:, :, None], np.array(COLOURS[action.colour], np.uint8), ground)


def _mask(shape: str, centre: npt.NDArray[np.float64], size: float) -> npt.NDArray[np.bool_]:
    """Where a shape is, (Y, X); `centre` (x, y) and `size`, its diameter, in sides of the picture."""
    y, x = (np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5) / SIDE_PX
    across, along = (x - centre[0]) / (size / 2), (y - centre[1]) / (size / 2)
    radius = np.hypot(across, along)
    if shape == "circle":
        return np.asarray(radius < 1)
    if shape == "ring":
        return np.asarray((radius < 1) & (radius > 0.5))
    if shape == "cross":
        return np.asarray((np.minimum(abs(across), abs(along)) < 0.33) & (np.maximum(abs(across), abs(along)) < 1))
    if shape == "square":
        return np.asarray(np.maximum(abs(across), abs(along)) < 0.9)
    return np.asarray((along < 0.9) & (abs(across) < (along + 1) / 2))


def _ground(rng: np.random.Generator) -> Pixels:
    """A grey texture, smooth at random, (Y, X, 3)."""
    frequency = np.hypot(np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX)[None, :])
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE_PX, SIDE_PX))) / (frequency + 2 / SIDE_PX) ** rng.uniform(1, 2)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(SIDE_PX, SIDE_PX))
    grey = noise / noise.std() * 15 + rng.uniform(70, 140)
    tint = rng.uniform(-12, 12, 3)
    picture: Pixels = (grey[:, :, None] + tint).clip(0, 255).astype(np.uint8)
    return picture


if __name__ == "__main__":
    tyro.cli(make_actions, config=(tyro.conf.PositionalRequiredArgs,))
