"""Looks at a few clips of a batch now and then, off the training thread: checks, a sheet, a film and a record.

Which clips, and of which steps, follows from the step alone, so that two runs of one seed show the same ones, and what
another sampling or preprocessing makes of them can be seen side by side. It knows no task.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from framefeed.cli.picture_files import write_mp4, write_png
from framefeed.new_file import write_whole
from framefeed.show_value import one_line
from trainer_client.feed.batch import Batch
from trainer_client.training.loop import StepRecord
from trainer_client.training.watch.clip_checks import FINDINGS, findings
from trainer_client.training.watch.clip_pictures import ShownClip, film_of, record_of, sheet_of, shown_clips

_log = logging.getLogger(__name__)

CLIPS_NAME = "clips"
_CHECKED, _DRAWN = 16, 4
_KEPT = 20  # looks whose files stay
_FILM_FPS = 8.0
_NICE = 10
_CLOSE_S = 30.0  # a look takes a second or so
_SEED = 0  # of which rows are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Clips of a step, and what is odd about each."""

    step: int
    clips: Sequence[ShownClip]
    found: Sequence[tuple[str, ...]]

    @property
    def counts(self) -> Counter[str]:
        """How many clips have each finding."""
        return Counter(name for names in self.found for name in names)


class ClipWatch:
    """Within its `with`, looks at every `every`-th step; FOLDER/clips/step_N.png, .mp4 and .json are the last 20 looks.

    A step whose turn comes while the look before goes on is passed over, and counted in `skipped`: the training thread
    never waits, and copies at most 16 clips.
    """

    def __init__(self, folder: Path, *, every: int) -> None:
        self.skipped = 0
        self._folder, self._every = folder / CLIPS_NAME, every
        self._wanted: queue.Queue[tuple[int, list[ShownClip]] | None] = queue.Queue(maxsize=1)
        self._lock = threading.Lock()
        self._done: list[Look] = []
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="framefeed-clip-watch", daemon=True)

    def __enter__(self) -> ClipWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Blocks until the look under way is written, at most 30 s."""
        try:
            self._wanted.put(None, timeout=_CLOSE_S)
        except queue.Full:
            return
        self._thread.join(_CLOSE_S)

    def see(self, batch: Batch, record: StepRecord) -> None:
        """Take the batch of a step; copies some clips if it is a step to look at."""
        if record.step % self._every:
            return
        if self._wanted.full():
            self.skipped += 1
            return
        rows = np.random.default_rng((_SEED, record.step)).permutation(len(batch))[:_CHECKED].tolist()
        clips = [replace(clip, pixels=clip.pixels.copy()) for clip in shown_clips(batch, rows)]
        self._wanted.put_nowait((record.step, clips))

    def take_done(self) -> list[Look]:
        """The looks that are over since this was last called, in order."""
        with self._lock:
            done, self._done = self._done, []
        return done

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread alone, on Linux
        while (wanted := self._wanted.get()) is not None:
            try:
                self._look(*wanted)
            except Exception as error:  # what is for people to look at ends no run
                _log.warning("clips of step %d: %s: %s", wanted[0], type(error).__name__, error)

    def _look(self, step: int, clips: list[ShownClip]) -> None:
        look = Look(step=step, clips=clips, found=[_found(clip) for clip in clips])
        with self._lock:
            self._done.append(look)
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = self._folder / f"step_{step:09d}"
        bodies = [record_of(clip) | {"found": list(found)} for clip, found in zip(clips, look.found, strict=True)]
        body = {"framefeed_clips": 1, "step": step, "drawn": _DRAWN, "clips": bodies}
        write_whole(stem.with_suffix(".json"), json.dumps(body, indent=1).encode() + b"\n")
        write_png(stem.with_suffix(".png"), sheet_of(clips[:_DRAWN]))
        write_mp4(stem.with_suffix(".mp4"), film_of(clips[:_DRAWN]), fps=_FILM_FPS, threads=1)
        self._tell(look, stem.with_suffix(".json"))
        self._prune()

    def _tell(self, look: Look, path: Path) -> None:
        """One line for each kind of finding, the first time that it comes."""
        for name, count in look.counts.items():
            if name not in self._told:
                self._told.add(name)
                clip = next(c for c, found in zip(look.clips, look.found, strict=True) if name in found)
                sample = clip.sample
                _log.warning(
                    "step %d: %d of %d clips that were looked at have a %s, as [%g, %g) s of %s; see %s (said once; "
                    "cuts of the videos themselves count too)",
                    look.step,
                    count,
                    len(look.clips),
                    name,
                    sample.start_s,
                    sample.end_s,
                    one_line(sample.video),
                    path,
                )

    def _prune(self) -> None:
        for old in sorted(self._folder.glob("step_*.json"))[:-_KEPT]:
            for ending in (".json", ".png", ".mp4"):
                old.with_suffix(ending).unlink(missing_ok=True)


def shares_of(looks: Sequence[Look]) -> Mapping[str, float]:
    """The share of the clips looked at that has each finding; nothing without a look."""
    clips = sum(len(look.clips) for look in looks)
    counts = sum((look.counts for look in looks), Counter[str]())
    return {name: counts[name] / clips for name in FINDINGS} if clips else {}


def _found(clip: ShownClip) -> tuple[str, ...]:
    """The findings of a clip, by its luma: of RGB the green, which is most of it."""
    shown = [t for t, (_, padded) in enumerate(clip.times) if not padded]
    planes = clip.pixels[..., 1] if clip.pixels.ndim == 4 else clip.pixels[:, : clip.pixels.shape[1] * 2 // 3]
    return findings(planes[shown], [clip.info.pts_s[t] for t in shown])
