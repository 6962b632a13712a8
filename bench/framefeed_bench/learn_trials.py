"""Trains recipes and scores their runs on one folder of scenes, through decode servers that each starts and ends.

Whatever it does, `framefeed train` and `framefeed eval` do as well. It knows no study and no figure.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from framefeed.manifest import read_manifest
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec, Split
from trainer_client.evaluate.eval import Eval
from trainer_client.evaluate.views_of_clips import ViewOptions
from trainer_client.training.recipes.catalogue import find_recipe
from trainer_client.training.recipes.overrides import changed
from trainer_client.training.recipes.run import train

Curve = list[tuple[int, float]]
"""Steps, and the mean loss of those since the point before."""

EVAL_CLIPS = 50
VIEWS = ViewOptions(rule="avion_views", stride=2)  # every second frame, as in training
_CURVE_POINTS = 40


@dataclass(slots=True, kw_only=True)
class Trials:
    """Runs lie in `runs` by name, `scenes` is what make_actions has made, indexed. One after another, on one thread."""

    scenes: Path
    runs: Path
    curves: dict[str, Curve] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def train(self, name: str, recipe: str, table: str, *changes: str) -> Path:
        """Train a recipe, changed, on a table of the scenes, for as long as it says. The run's folder."""
        out = self.runs / name
        places = (f"root={self.scenes}", f"out={out}", f"data.path={self.scenes / table}")
        with self.timed(name):
            train(changed(find_recipe(recipe), *places, *changes))
        self.curves[name] = _curve(out)
        return out

    def score(self, run: Path, table: str, split: Split) -> Mapping[str, float]:
        """The scores of a run on a split of a table, by every second frame from the scene's first on."""
        out = run / f"{table}_{split}.json"
        with self.timed(f"{run.name}: scored"):
            Eval(
                weights=run,
                root=self.scenes,
                data=self.table(table, split),
                views=VIEWS,
                batch_clips=EVAL_CLIPS,
                threads=1,
                out=out,
            ).run()
        scores: Mapping[str, float] = json.loads(out.read_text())["scores"]
        return scores

    def table(self, name: str, split: Split) -> DataSpec:
        """A split of a table of the scenes."""
        return DataSpec(kind="table", path=self.scenes / name, split=split)

    def labels(self, name: str, split: Split) -> npt.NDArray[np.int32]:
        """The labels of a table's rows, int32 (N,)."""
        return open_dataset(self.table(name, split), read_manifest(self.scenes)).label_array("label")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the CPU time of this process and of what it starts and ends within."""
        began_s = cpu_seconds()
        yield
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + cpu_seconds() - began_s


def cpu_seconds() -> float:
    """CPU time of this process and of all those that it has started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _curve(out: Path) -> Curve:
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("train/loss")]
    few = max(len(points) // _CURVE_POINTS, 1)
    groups = [points[at : at + few] for at in range(0, len(points), few)]
    return [(group[-1][0], round(sum(loss for _, loss in group) / len(group), 4)) for group in groups]
