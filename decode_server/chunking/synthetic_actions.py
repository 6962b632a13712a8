"""Makes short synthetic scenes that say what happens in them: one shape that moves and grows, with captions and labels.

Beside the videos lie train.jsonl, val.jsonl and test.jsonl, lines of video, start, end, text and label, which is the
direction: told by motion alone, never by one frame. Combinations of shape, colour and direction in `test` are in no
other split. It knows nothing of data sets or models. `python -m decode_server.chunking.synthetic_actions OUT`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
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

SCENE_S, FPS, SIDE_PX = 1, 16, 64
SHAPES = ("circle", "square", "triangle", "ring")
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230), "yellow": (230, 210, 40)}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slowly": 0.25, "fast": 0.6}  # of the side, in a scene
SIZES = {"grows": (0.24, 0.4), "shrinks": (0.4, 0.24), "stays": (0.32, 0.32)}  # of the side, first and last
_FRAMES = SCENE_S * FPS
_UNSEEN = 5  # every so-manieth combination is in `test` alone


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
    """Write so many scenes of a second each split into OUT, 64 x 64 pixels at 16 frames a second, and their lines.

    The files are a function of the arguments. Blocks for some 6 ms a scene. Raises BadInput for counts that make none.
    """
    if min(train, val, test) < 0 or train < 1 or scenes_a_video < 1:
        raise BadInput(f"actions: {train}, {val} and {test} scenes, {scenes_a_video} a video, wanted at least one")
    out.mkdir(parents=True, exist_ok=True)
    seen = [action for action in ACTIONS if not action.is_unseen]
    unseen = [action for action in ACTIONS if action.is_unseen]
    for number, (split, count, choice) in enumerate(
        (("train", train, seen), ("val", val, seen), ("test", test, unseen))
    ):
        rng = np.random.Generator(np.random.Philox(key=(seed, number)))
        actions = [choice[at] for at in _even(rng, count, len(choice))]
        lines = list(_write_videos(out, split, actions, rng=rng, scenes=scenes_a_video))
        body = "".join(f"{json.dumps(line)}\n" for line in lines)
        write_whole(out / f"{split}.jsonl", body.encode())


def _even(rng: np.random.Generator, count: int, choices: int) -> list[int]:
    """So many of the choices, each as often as any other but one, in random order."""
    rounds = [rng.permutation(choices) for _ in range(-(-count // choices))]
    return [int(at) for at in np.concatenate(rounds)[:count]] if rounds else []


def _write_videos(
    out: Path, split: str, actions: Sequence[Action], *, rng: np.random.Generator, scenes: int
) -> Iterator[dict[str, object]]:
    for first in range(0, len(actions), scenes):
        name, chosen = f"{split}_{first // scenes:04d}.mp4", actions[first : first + scenes]
        with NewFile(out / name) as new:
            with av.open(new.file, "w", format="mp4") as container:
                options = {"preset": "ultrafast", "crf": "12", "threads": "1", "g": str(_FRAMES)}
                stream = container.add_stream("libx264", rate=Fraction(FPS), options=options)
                assert isinstance(stream, av.VideoStream)
                stream.width = stream.height = SIDE_PX
                stream.pix_fmt = "yuv420p"
                for picture in (picture for action in chosen for picture in _pictures(action, rng)):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode(None))
            new.take_place()
        for number, action in enumerate(chosen):
            at_s = number * SCENE_S
            said = {"text": action.text, "label": action.direction}
            yield {"video": name, "start": at_s, "end": at_s + SCENE_S, **said}


def _pictures(action: Action, rng: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a scene, uint8 (Y, X, 3): the shape passes the middle of its way half-way through."""
    ground = _ground(rng)
    step = np.array(DIRECTIONS[action.direction]) * SPEEDS[action.speed]
    middle = 0.5 + rng.uniform(-0.15, 0.15, 2)
    first, last = SIZES[action.size]
    for number in range(_FRAMES):
        share = number / (_FRAMES - 1)
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
    if shape == "square":
        return np.asarray(np.maximum(abs(across), abs(along)) < 0.9)
    return np.asarray((along < 0.9) & (abs(across) < (along + 1) / 2))


def _ground(rng: np.random.Generator) -> Pixels:
    """A grey texture, smooth at random, (Y, X, 3)."""
    frequency = np.hypot(np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX)[None, :])
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE_PX, SIDE_PX))) / (frequency + 2 / SIDE_PX) ** rng.uniform(1, 2)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(SIDE_PX, SIDE_PX))
    grey = noise / noise.std() * 25 + rng.uniform(70, 150)
    tint = rng.uniform(-12, 12, 3)
    picture: Pixels = (grey[:, :, None] + tint).clip(0, 255).astype(np.uint8)
    return picture


if __name__ == "__main__":
    tyro.cli(make_actions, config=(tyro.conf.PositionalRequiredArgs,))
