"""`make learn`: what the small recipes learn from made scenes, through decode servers of this machine.

Writes bench/results/learn.json, of which `python -m framefeed_bench.learn_page` makes docs/learning.md. It knows no
study's detail.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from rich.console import Console

from decode_server.chunking.synthetic_actions import make_actions
from decode_server.indexing.index import Index
from framefeed.errors import BadInput, FramefeedError
from framefeed_bench.learn_page import learn_table
from framefeed_bench.learn_studies import SCENES_A_VIDEO, STUDIES, TEST_SCENES, TRAIN_SCENES, VAL_SCENES
from framefeed_bench.learn_trials import Trials
from framefeed_bench.machine import provenance

SCENES = "scenes"  # what making them is timed under


@dataclass(frozen=True, kw_only=True)
class LearnBench:
    """Train the small recipes on made scenes and score them."""

    studies: tuple[str, ...] = tuple(STUDIES)
    """Which; those that are not named keep the figures that --out has."""
    out: Path = Path("bench/results/learn.json")
    """Where the result is written."""
    runs: Path | None = None
    """Folder that keeps scenes and runs. Default: none is kept."""

    def run(self) -> None:
        """Train, score, write and print. Raises BadInput for a study that there is not, and FramefeedError, once all is
        written, where a figure is not what it should be."""
        if unknown := set(self.studies) - set(STUDIES):
            raise BadInput(f"--studies has {sorted(unknown)[0]!r}, wanted some of {', '.join(STUDIES)}")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = json.loads(self.out.read_text()) if self.out.exists() else {"studies": {}}
        studies: dict[str, Any] = result["studies"]
        with TemporaryDirectory(prefix="framefeed-learn-") as temporary:
            trials = prepared(self.runs or Path(temporary))
            for name in self.studies:
                studies[name] = studied(trials, name)
                ordered = {one: studies[one] for one in STUDIES if one in studies}
                result = {"scenes_cpu_s": round(trials.cpu_s[SCENES]), "studies": ordered}
                self.out.write_text(json.dumps(result, indent=1) + "\n")
        Console().print(learn_table(result))
        missed = [f"{name}: {line}" for name in self.studies for line in missing(studies[name])]
        if missed:
            raise FramefeedError(f"learn: not as wanted: {'; '.join(missed)}")


def prepared(folder: Path) -> Trials:
    """Scenes in a folder, made and indexed, and where runs on them will lie."""
    trials = Trials(scenes=folder / "scenes", runs=folder / "runs")
    with trials.timed(SCENES):
        make_actions(trials.scenes, train=TRAIN_SCENES, val=VAL_SCENES, test=TEST_SCENES, scenes_a_video=SCENES_A_VIDEO)
        Index(root=trials.scenes, jobs=1).run()
    return trials


def studied(trials: Trials, name: str) -> dict[str, Any]:
    """One study's figures, its trainings' curves and CPU seconds, and where and when."""
    curves, cpu_s = set(trials.curves), sum(trials.cpu_s.values())
    figures = [asdict(figure) | {"holds": figure.holds} for figure in STUDIES[name](trials)]
    return {
        **provenance(),
        "about": inspect.getdoc(STUDIES[name]),
        "cpu_s": round(sum(trials.cpu_s.values()) - cpu_s),
        "figures": figures,
        "losses": {run: curve for run, curve in trials.curves.items() if run not in curves},
    }


def missing(study: Mapping[str, Any]) -> list[str]:
    """What of a study is not as it should be."""
    return [f"{one['what']} is {one['value']:.3f}" for one in study["figures"] if not one["holds"]]


if __name__ == "__main__":
    try:
        tyro.cli(LearnBench).run()
    except FramefeedError as error:
        sys.exit(f"framefeed: {error}")
