"""The verb `show run`, which is also `show --run`: a step's batch of a run again, as sheet, film and record.

    framefeed show --run runs/mae --step 41307                            # step_000041307.png
    framefeed show --run runs/mae --step 41307 --out a.png b.mp4 c.json --servers tcp://HOST:PORT

It decides nothing about the batch and knows no recipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from framefeed.cli.picture_files import write_mp4, write_png
from framefeed.errors import BadInput
from framefeed.new_file import check_place, write_whole
from framefeed.show_value import one_line
from trainer_client.fleet.addresses import LOCAL
from trainer_client.training.recipes.rebuild import RebuiltStep, rebuild_step
from trainer_client.training.watch.clip_pictures import ShownClip, film_of, record_of, sheet_of, shown_clips

_ENDINGS = (".png", ".mp4", ".json")


@dataclass(frozen=True, kw_only=True)
class ShowRun:
    """Make a step's batch of a run again, byte by byte.

    It is written as a sheet, a film or a record.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run: its recipe.json, and its newest checkpoint, which knows what stood in."""
    step: int
    """Step, from 1 on as curves and checkpoints count; --skip-step and skipped_steps.jsonl count from 0."""
    out: tuple[Path, ...] = ()
    """Files to write: .png a sheet of frames, .mp4 the clips moving, .json all that is known of every clip with the
    SHA-256 of its pixels. Default: step_STEP.png here."""
    root: Path | None = None
    """Folder of the videos now. Default: the recipe's."""
    servers: tuple[str, ...] = (LOCAL,)
    """Decode servers to ask. local: one of this machine, which ends with the command."""
    rank: int | None = None
    """Show what this process of the run got. Default: the whole global batch."""
    rows: tuple[int, ...] = ()
    """Rows of the batch to draw, from 0 on. Default: the first eight. The record has all."""
    fps: float = 4.0
    """Frames of the clips shown in a second of the film."""

    def run(self) -> None:
        """Rebuild and write. Raises BadInput for options that make nothing, and as `rebuild_step` does."""
        files = self.out or (Path(f"step_{self.step:09d}.png"),)
        for path in files:
            if path.suffix not in _ENDINGS:
                raise BadInput(f"show run: --out is {path}, wanted files ending in {', '.join(_ENDINGS)}")
            check_place(path, option="--out")
        if not 0.1 <= self.fps <= 240:
            raise BadInput(f"show run: --fps is {self.fps:g}, wanted 0.1 to 240")
        if self.step < 0:
            raise BadInput(f"show run: --step is {self.step}, wanted 0 or more")
        if self.rank is not None and self.rank < 0:
            raise BadInput(f"show run: --rank is {self.rank}, wanted 0 or more")
        if any(row < 0 for row in self.rows):
            raise BadInput(f"show run: --rows has {min(self.rows)}, wanted 0 or more")
        rebuilt = rebuild_step(self.folder, self.step, root=self.root, servers=self.servers)
        mine = self._rows_of_rank(rebuilt)
        drawn = [mine[row] for row in self._drawn(len(mine))]
        record = _record(rebuilt, shown_clips(rebuilt.batch, mine))
        print(_about(rebuilt, str(record["sha256"])))
        clips = shown_clips(rebuilt.batch, drawn)
        for clip in clips:
            print(_line(clip))
        if left := len(mine) - len(set(drawn)):
            print(f"{left} more; --rows N N … draws others, and --out FILE.json records all {len(mine)}")
        for path in files:
            self._write(path, clips, record)
            print(f"wrote {path}")

    def _rows_of_rank(self, rebuilt: RebuiltStep) -> range:
        rows = len(rebuilt.batch)
        if self.rank is None:
            return range(rows)
        if not 0 <= self.rank < rebuilt.world:
            raise BadInput(f"show run: --rank is {self.rank}, wanted 0 to {rebuilt.world - 1}: the run's processes")
        share = rows // rebuilt.world
        return range(self.rank * share, (self.rank + 1) * share)

    def _drawn(self, rows: int) -> Sequence[int]:
        if wrong := [row for row in self.rows if not 0 <= row < rows]:
            raise BadInput(f"show run: --rows has {wrong[0]}, wanted 0 to {rows - 1}")
        return self.rows or range(min(rows, 8))

    def _write(self, path: Path, clips: Sequence[ShownClip], record: dict[str, object]) -> None:
        if path.suffix == ".png":
            write_png(path, sheet_of(clips))
        elif path.suffix == ".mp4":
            write_mp4(path, film_of(clips), fps=self.fps)
        else:
            write_whole(path, json.dumps(record, indent=1).encode() + b"\n")


def _record(rebuilt: RebuiltStep, clips: Sequence[ShownClip]) -> dict[str, object]:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(np.ascontiguousarray(clip.pixels).data)
    return {
        "framefeed_step": 1,
        "recipe": rebuilt.recipe.name,
        "step": rebuilt.step,
        "recorded": rebuilt.recorded,
        "dataset": rebuilt.dataset,
        "decoder": rebuilt.decoder,
        "sha256": digest.hexdigest(),
        "clips": [record_of(clip) for clip in clips],
    }


def _about(rebuilt: RebuiltStep, digest: str) -> str:
    sure = "" if rebuilt.recorded else "; the run has no checkpoint after it: by the plan, stand-ins are not recorded"
    stood_in = f", of which {len(rebuilt.batch.stand_ins)} stand in," if rebuilt.batch.stand_ins else ""
    return (
        f"step {rebuilt.step} of {rebuilt.recipe.name}: {len(rebuilt.batch)} clips{stood_in} of data set "
        f"{rebuilt.dataset or 'unknown'}, sha256 {digest}{sure}"
    )


def _line(clip: ShownClip) -> str:
    sample, info = clip.sample, clip.info
    times = " ".join("pad" if padded else f"{at_s:.3f}" for at_s, padded in clip.times)
    return (
        f"row {clip.row}: sample {clip.index}, epoch {clip.epoch}, {one_line(sample.video)} [{sample.start_s:g}, "
        f"{sample.end_s:g}) s, box {info.box}{', mirrored' if info.flipped else ''}, seed {clip.seed}, frames at "
        f"{times} s{f', stands in ({clip.stood_in})' if clip.stood_in else ''}"
    )
