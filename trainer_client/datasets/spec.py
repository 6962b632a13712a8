"""Which annotations a run learns from or is scored on, as a value that a recipe or a command line can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["ego4d", "egomcq", "ek100_mir", "ek100_cls", "kinetics", "ssv2", "class_folders", "table"]
Split = Literal["train", "val", "test"]
Absent = Literal["refuse", "leave_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Annotations of one kind, at `path`, of which `split`."""

    kind: Kind
    """What wrote the annotations. ego4d: pickles of Ego4D and LaViLa. egomcq: egomcq.json. ek100_mir, ek100_cls: the
    folder of EPIC-Kitchens-100's CSVs. kinetics, ssv2: lists of PATH [FRAMES] LABEL. class_folders: none, a class is
    the folder that a video lies in. table: CSV or JSON lines of video, start, end, label or text."""
    path: Path
    """The file; or a folder, which is looked through for the split's. For class_folders: the folder of all classes as
    it is named in the manifest, or "." for all of it."""
    split: Split = "train"
    """Which of the files in a folder."""
    extra: tuple[Path, ...] = ()
    """More files of the same form, read behind it: LaViLa's narrator pickles."""
    classes: Path | None = None
    """A text file that names the classes, one a line in the order of their numbers. None: the annotations say it."""
    absent: Absent = "refuse"
    """What becomes of rows whose video the root does not have, or not for so long: refuse all, or leave_out and
    count them."""
    cache: Path | None = None
    """Folder that keeps the columns which annotations are converted to, once. None: framefeed/datasets in the user's
    cache folder."""
