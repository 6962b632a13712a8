"""What a run leaves beside its weights, found from its folder or from that of a checkpoint in it. It reads nothing."""

from __future__ import annotations

from pathlib import Path


def find_beside(weights: Path, name: str) -> Path | None:
    """The file of that name in the folder of weights, or in the one above; None if there is none."""
    folders = (folder for folder in (weights, weights.parent) if folder.is_dir())
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
