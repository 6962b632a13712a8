"""Where a run's curves go: TensorBoard's files always, Weights & Biases where a project is named; knows no training.

The package wandb is imported here alone, and only for a run that names a project.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol

from torch.utils.tensorboard import SummaryWriter

from framefeed.errors import BadInput
from framefeed.show_value import show_value

RUN_ID = "wandb_run"  # file of a run's folder with its name there, so that a run that resumes goes on in it


class _Run(Protocol):
    """What is used of a run of W&B's."""

    def log(self, data: dict[str, float], *, step: int) -> None: ...

    def finish(self) -> None: ...


class Curves:
    """Numbers by name and step, to all that is told; within its `with`."""

    def __init__(
        self, folder: Path, *, first_step: int, project: str | None = None, config: Mapping[str, object]
    ) -> None:
        """`project` is W&B's, `config` what it shows of the run. What was told beyond `first_step` before goes.

        Raises BadInput, in one line, for a project without the package, or that it cannot begin.
        """
        self._stack = ExitStack()
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else None)
        self._stack.callback(self._board.close)
        self._wandb: _Run | None = None
        if project is not None:
            try:
                self._wandb = _wandb_run(folder, project, config)
            except BaseException:
                self._stack.close()
                raise
            self._stack.callback(self._wandb.finish)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Tell numbers of a step. Writes from threads of the boards' own."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)


def _wandb_run(folder: Path, project: str, config: Mapping[str, object]) -> _Run:
    try:
        import wandb  # noqa: PLC0415 - an optional backend, in the file that owns it
    except ModuleNotFoundError:
        raise BadInput(
            f"--wandb is {show_value(project)} and the package is missing; pip install 'framefeed[wandb]'"
        ) from None
    kept = folder / RUN_ID
    run_id = kept.read_text().strip() if kept.is_file() else secrets.token_hex(4)
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        run: _Run = wandb.init(
            project=project, name=folder.name, dir=str(folder), id=run_id, resume="allow", config=dict(config)
        )
    except (wandb.errors.Error, OSError) as error:
        raise BadInput(
            f"--wandb {show_value(project)} cannot begin: {str(error).partition(chr(10))[0][:200]}"
        ) from None
    kept.write_text(f"{run_id}\n")
    return run
