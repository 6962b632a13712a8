"""Makes annotations of a manifest alone: a video's class is the folder that it lies in. It reads no file."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import PurePosixPath

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.parsed import Parsed, read_classes
from trainer_client.datasets.spec import DataSpec


def read_class_folders(spec: DataSpec, videos: Collection[str]) -> Parsed:
    """Every video of `path` or, where that has a folder named as the split, of that: PATH/[SPLIT/]CLASS/…/VIDEO.

    Classes are all that any split has, in name order, unless a file names them. Raises BadInput for a video that lies
    in no class, a class that is unknown, and for no video.
    """
    prefix = "" if str(spec.path) == "." else f"{PurePosixPath(spec.path)}/"
    below = {name: name.removeprefix(prefix).split("/") for name in sorted(videos) if name.startswith(prefix)}
    splits = {parts[0] for parts in below.values()} & {"train", "val", "test", "validation"}
    names = {"train": {"train"}, "val": {"val", "validation"}, "test": {"test"}}[spec.split]
    depth = 1 if splits else 0
    own = {name: parts for name, parts in below.items() if not splits or parts[0] in names}
    if not own:
        raise BadInput(f"class folders: the manifest has no video below {show_value(prefix or '.')} of {spec.split}")
    for name, parts in below.items():
        if len(parts) < depth + 2:
            raise BadInput(f"class folders: {show_value(name)} lies in no class, wanted {prefix}CLASS/VIDEO")
    if spec.classes is not None:
        classes = read_classes(spec.classes)
    else:
        classes = tuple(sorted({parts[depth] for parts in below.values()}))
    numbers = {name: number for number, name in enumerate(classes)}
    rows = []
    for name, parts in own.items():
        if parts[depth] not in numbers:
            seen = show_value(parts[depth])
            raise BadInput(
                f"class folders: the class {seen} of {show_value(name)} is unknown, wanted one of {len(classes)}"
            )
        rows.append(Row(name, 0.0, math.inf, labels=(numbers[parts[depth]],)))
    return Parsed(rows=rows, labels=("label",), classes={"label": classes})
