"""The reports of a run's evaluations, OUT/eval/step_*.json; it knows names and folders, not how anything is scored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from framefeed.errors import StorageFault
from framefeed.new_file import write_whole
from trainer_client.evaluate.report import Report
from trainer_client.training.ranks import Ranks

EVAL_NAME = "eval"
_NAME = re.compile(r"step_(\d{9,})(?:\.\w+)?\.json")


class ScoreFiles:
    """Which steps were scored, alike on all ranks; rank 0 alone has files. `begin` comes first."""

    def __init__(self, out: Path, ranks: Ranks) -> None:
        self._folder, self._ranks = out / EVAL_NAME, ranks
        self._done: set[int] = set()

    def begin(self, *, after: int | None) -> None:
        """Go on after so many steps: reports of later ones go, as what they scored is trained anew; None: all go.

        A collective. Raises StorageFault.
        """
        found: dict[Path, int] = {}
        if self._ranks.rank == 0 and self._folder.is_dir():
            named = ((path, _NAME.fullmatch(path.name)) for path in self._folder.iterdir())
            found = {path: int(match[1]) for path, match in named if match}
        for path in [path for path, step in found.items() if after is None or step > after]:
            try:
                path.unlink()
            except OSError as error:
                raise StorageFault(f"report {path} of an earlier run cannot be removed: {error.strerror}") from None
            del found[path]
        self._done = set(json.loads(self._ranks.first_says(json.dumps(sorted(set(found.values()))))))

    def has(self, step: int) -> bool:
        """Whether the weights after that step were scored."""
        return step in self._done

    def write(self, step: int, reports: Mapping[str, Report]) -> None:
        """Note that a step was scored, and on rank 0 keep its reports by what they are of: "" for the weights
        themselves, whose comes last. Raises StorageFault.
        """
        self._done.add(step)
        if self._ranks.rank:
            return
        for name, report in sorted(reports.items(), reverse=True):
            path = self._folder / f"step_{step:09d}{f'.{name}' if name else ''}.json"
            try:
                self._folder.mkdir(exist_ok=True)
                write_whole(path, report.as_json().encode())
            except OSError as error:
                raise StorageFault(f"report {path} cannot be written: {error.strerror}") from None
