"""Writes dashboards/*.json, which Grafana reads, from board_*.py: `python -m deploy.grafana.dashboards`."""

from __future__ import annotations

from pathlib import Path

from deploy.grafana.board_faults import FAULTS
from deploy.grafana.board_fleet import FLEET
from deploy.grafana.board_training import TRAINING

BOARDS = (TRAINING, FLEET, FAULTS)
FOLDER = Path(__file__).parent / "dashboards"


def write(folder: Path) -> None:
    """Write each board's JSON into a folder that is there."""
    for board in BOARDS:
        (folder / f"{board.uid}.json").write_text(board.render())


if __name__ == "__main__":
    write(FOLDER)
