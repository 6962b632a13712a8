"""Makes varied synthetic videos, the same for the same seed; knows nothing of datasets, chunks or models.

Each video is a row of scenes with hard cuts: a textured background under a drifting, shaking camera and a light
gradient, textured shapes on smooth paths before it, and sensor noise. Motion is smooth and textures repeat, so a small
masked autoencoder has something to learn. `python -m decode_server.chunking.synthetic OUT` writes a few.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import tyro

from framefeed.cli.interrupts import held
from framefeed.cli.uninterrupted import begin_uninterrupted
from framefeed.errors import BadInput
from framefeed.new_file import NewFile

Plane = npt.NDArray[np.uint8]
Picture = tuple[Plane, Plane, Plane]  # Y, U, V of 4:2:0

_TILE_PX = 512  # textures repeat after this; even, so chroma repeats with luma
_SHAKE_PX = 4.0
_SCENE_S = (2.0, 5.0)
_NOISE_AMPLITUDE = 3


def make_videos(
    out: Path,
    *,
    videos: int = 6,
    seconds: float = 30,
    size_px: tuple[int, int] = (512, 288),
    fps: int = 30,
    seed: int = 0,
) -> list[Path]:
    """Write OUT/scene_000.mp4… (H.264, `size_px` is width and height), each `seconds` long, and return their paths.

    The bytes are a function of the arguments. Uses one process a CPU and blocks until all are written; at 512 by 288
    and 30 fps a CPU makes some 14 seconds of video in one.

    Raises:
        BadInput: nothing to make, or a size that is odd or below 32.
    """
    if videos < 1 or seconds * fps < 1 or fps < 1:
        raise BadInput(f"{videos} videos of {seconds} s at {fps} frames a second are no frames; wanted at least one")
    if min(size_px) < 32 or size_px[0] % 2 or size_px[1] % 2:
        raise BadInput(f"size_px is {size_px[0]}x{size_px[1]}, wanted even numbers from 32 on")
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(path=out / f"scene_{n:03d}.mp4", frames=round(seconds * fps), size_px=size_px, fps=fps, key=(seed, n))
        for n in range(videos)
    ]
    workers = min(videos, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=begin_uninterrupted, initargs=(os.getpid(),)
    ) as pool:
        with held():
            made = pool.map(_make_video, jobs)
        return list(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    path: Path
    frames: int
    size_px: tuple[int, int]
    fps: int
    key: tuple[int, int]


def _make_video(job: _Job) -> Path:
    with NewFile(job.path) as new:
        with av.open(new.file, "w", format="mp4") as container:
            options = {"preset": "ultrafast", "crf": "20", "threads": "1"}
            stream = container.add_stream("libx264", rate=Fraction(job.fps), options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = job.size_px
            stream.pix_fmt = "yuv420p"
            for number, picture in enumerate(_pictures(job)):
                frame = av.VideoFrame(*job.size_px, "yuv420p")
                for plane, values in zip(frame.planes, picture, strict=True):
                    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
                    rows[:, : plane.width] = values
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        new.take_place()
    return job.path


def _pictures(job: _Job) -> Iterator[Picture]:
    rng = np.random.Generator(np.random.Philox(key=job.key))
    left = job.frames
    while left:
        length = min(left, round(rng.uniform(*_SCENE_S) * job.fps) or 1)
        scene = _Scene(rng, job.size_px, job.fps)
        for number in range(length):
            yield scene.picture(number)
        left -= length


class _Shape:
    """A textured shape on a Lissajous path; its picture is drawn once and pasted."""

    def __init__(self, rng: np.random.Generator, size_px: tuple[int, int]) -> None:
        short_px = min(size_px)
        rows_px, columns_px = (2 * (int(rng.uniform(0.12, 0.38) * short_px) // 2) for _ in range(2))
        self.texture = tuple(
            plane[: _half(rows_px, k), : _half(columns_px, k)] for k, plane in enumerate(_texture(rng))
        )
        y, x = np.mgrid[-1 : 1 : rows_px * 1j, -1 : 1 : columns_px * 1j]
        radius2 = x**2 + y**2
        outlines = (radius2 < 1, (radius2 < 1) & (radius2 > 0.3), abs(x) + abs(y) < 1, abs(x) < 2)  # the last is full
        self.mask = outlines[rng.integers(len(outlines))]
        self._centre = rng.uniform(0.2, 0.8, 2) * size_px
        self._reach = rng.uniform(0.1, 0.45, 2) * size_px
        self._rate = rng.uniform(0.4, 2.2, 2) * rng.choice((-1, 1), 2)
        self._phase = rng.uniform(0, 2 * np.pi, 2)

    def paste(self, picture: Picture, time_s: float) -> None:
        """Draw the shape where it is at `time_s` of its scene, clipped to the picture."""
        column, row = self._centre + self._reach * np.sin(self._rate * time_s + self._phase)
        rows_px, columns_px = self.mask.shape
        top, left = int(row - rows_px / 2), int(column - columns_px / 2)
        for k, (plane, texture) in enumerate(zip(picture, self.texture, strict=True)):
            mask = self.mask if k == 0 else self.mask[::2, ::2]
            y, x = _half(top, k), _half(left, k)
            seen = plane[max(y, 0) : max(y + mask.shape[0], 0), max(x, 0) : max(x + mask.shape[1], 0)]
            part = slice(max(-y, 0), max(-y, 0) + seen.shape[0]), slice(max(-x, 0), max(-x, 0) + seen.shape[1])
            np.copyto(seen, texture[part], where=mask[part])


class _Scene:
    """One shot: background, light, camera, shapes and noise, drawn anew for each frame number."""

    def __init__(self, rng: np.random.Generator, size_px: tuple[int, int], fps: int) -> None:
        self._width_px, self._height_px = size_px
        self._fps = fps
        repeats = (self._height_px // _TILE_PX + 2, self._width_px // _TILE_PX + 2)
        self._background = tuple(np.tile(plane, repeats) for plane in _texture(rng))
        self._drift_px_per_s = rng.uniform(-60, 60, 2)
        self._shake_rate = rng.uniform(5, 14, 2)
        self._offset_px = rng.uniform(0, _TILE_PX, 2)
        slope = rng.uniform(-40, 40, 2)
        rows, columns = np.linspace(-0.5, 0.5, self._height_px), np.linspace(-0.5, 0.5, self._width_px)
        self._light = (slope[0] * rows[:, None] + slope[1] * columns[None, :]).astype(np.int16)
        noise = rng.integers(-_NOISE_AMPLITUDE, _NOISE_AMPLITUDE + 1, (self._height_px + 64, self._width_px + 64))
        self._noise = noise.astype(np.int16)
        self._shapes = [_Shape(rng, size_px) for _ in range(rng.integers(3, 7))]
        self._rng = rng

    def picture(self, number: int) -> Picture:
        """Planes of frame `number` of the scene; to be asked for in order, since each draws its noise."""
        time_s = number / self._fps
        position = self._offset_px + self._drift_px_per_s * time_s + _SHAKE_PX * np.sin(self._shake_rate * time_s)
        top, left = (int(at) % _TILE_PX for at in position)
        windows = [
            plane[_half(top, k) :, _half(left, k) :][: _half(self._height_px, k), : _half(self._width_px, k)].copy()
            for k, plane in enumerate(self._background)
        ]
        picture = windows[0], windows[1], windows[2]
        for shape in self._shapes:
            shape.paste(picture, time_s)
        y, x = self._rng.integers(0, 64, 2)
        lit = picture[0] + self._light
        lit += self._noise[y : y + self._height_px, x : x + self._width_px]
        return lit.clip(16, 235, out=lit).astype(np.uint8), picture[1], picture[2]


def _half(length_px: int, plane: int) -> int:
    """A length of the luma plane (0), or the same in a chroma plane."""
    return length_px if plane == 0 else length_px // 2


def _texture(rng: np.random.Generator) -> Picture:
    """A repeating tile: coloured noise of a random roughness, or stripes bent by it."""
    roughness = rng.uniform(2.2, 3.2)
    luma = _smooth_noise(rng, _TILE_PX, roughness)
    if rng.random() < 0.5:
        waves = rng.integers(1, 6, 2) * rng.choice((-1, 1), 2)
        y, x = np.mgrid[:_TILE_PX, :_TILE_PX] * (2 * np.pi / _TILE_PX)
        luma = 1.4 * np.sin(waves[0] * y + waves[1] * x + 1.5 * luma)
    u, v = (_smooth_noise(rng, _TILE_PX // 2, 2.0) * 14 + rng.uniform(-40, 40) + 128 for _ in range(2))
    y_plane = luma * rng.uniform(20, 45) + rng.uniform(70, 180)
    return _as_plane(y_plane), _as_plane(u), _as_plane(v)


def _smooth_noise(rng: np.random.Generator, size_px: int, roughness: float) -> npt.NDArray[np.float64]:
    """Periodic noise of mean 0 and deviation 1 whose spectrum falls with frequency to the power of `roughness`."""
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :])
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px))) / (frequency + 2 / size_px) ** roughness
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size_px, size_px))
    return np.asarray(noise / noise.std())


def _as_plane(values: npt.NDArray[np.float64]) -> Plane:
    return values.clip(16, 235).astype(np.uint8)


if __name__ == "__main__":
    tyro.cli(make_videos, config=(tyro.conf.PositionalRequiredArgs,))
