"""The names of the classes that a model was trained on, as a file beside the run. It knows no model and no scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from framefeed.regular_file import read_regular
from trainer_client.beside_weights import find_beside

CLASSES_NAME = "classes.json"
_MAX_BYTES = 16 << 20

ClassNames = Mapping[str, tuple[str, ...]]
"""By what they classify, in the order of their numbers."""


def write_class_file(folder: Path, classes: ClassNames) -> None:
    """Write them whole into a run's folder."""
    write_whole(folder / CLASSES_NAME, msgspec.json.format(msgspec.json.encode(classes), indent=1))


def find_class_file(weights: Path) -> ClassNames | None:
    """Those of the file in the folder of weights, or above it; None if there is none. Raises BadInput for another."""
    path = find_beside(weights, CLASSES_NAME)
    if path is None:
        return None
    try:
        data = read_regular(path, limit_bytes=_MAX_BYTES)
        found: ClassNames = msgspec.json.decode(data, type=dict[str, tuple[str, ...]])
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput(f"classes {path} cannot be read: {error}") from None
    return found
