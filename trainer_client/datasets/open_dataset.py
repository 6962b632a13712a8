"""Opens annotations of any kind as a data set of a manifest's videos: converted to columns once, then mapped.

Columns are kept under the annotations' kind, place, size and time of change, so a file that is written again is
converted again. One process of a machine converts, others wait for it. It knows no servers, clips or tasks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from trainer_client.datasets.annotated import AnnotatedDataset, Naming, TextsOf
from trainer_client.datasets.class_folders import read_class_folders
from trainer_client.datasets.column_writer import PART_SUFFIX, Meaning, new_columns
from trainer_client.datasets.columns import HEAD_NAME, VERSION, Columns, open_columns
from trainer_client.datasets.ego4d import read_ego4d
from trainer_client.datasets.egomcq import EGOMCQ_NAME, read_egomcq
from trainer_client.datasets.epic_kitchens import action_files, clips_file, read_epic, sentences_file
from trainer_client.datasets.parsed import Parsed, Unread, pick_file
from trainer_client.datasets.relevancy import relevancy_of, relevant_texts
from trainer_client.datasets.spec import DataSpec
from trainer_client.datasets.tables import read_table, table_files
from trainer_client.datasets.video_lists import list_files, read_list

_log = logging.getLogger(__name__)

_LOOK_S, _NOTICE_S, _PATIENCE_S = 0.2, 30.0, 3600.0
_EGO4D_FILES = {
    "train": ("ego4d_train.rephraser.no_punkt_top3.pkl", "ego4d_train.pkl"),
    "val": ("ego4d_val.pkl",),
    "test": ("ego4d_val.pkl",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Annotations: the files that they follow from, and what reads these; `said` is what follows from no file."""

    files: Sequence[Path]
    read: Callable[[Unread | None], Parsed]
    said: tuple[str, ...] = ()


def open_dataset(spec: DataSpec, manifest: Manifest, *, option: str = "--data.absent") -> AnnotatedDataset:
    """The samples that the annotations say, of the manifest's videos; `option` is how a user lets rows be absent.

    Blocks while annotations are converted for the first time (a minute a million rows of a pickle at worst), after that
    for a second or two whatever their number. Raises BadInput, in one line, for annotations that are not of this kind,
    unknown classes, an empty split, and for rows whose video or time the manifest does not have unless they may be left
    out.
    """
    source = _source(spec, manifest)
    columns = _columns(spec, source)
    what = f"{spec.kind} {spec.split} of {spec.path}"
    naming = Naming(what=what, absent=spec.absent, option=option, place=lambda row: _place(source, row))
    return AnnotatedDataset(columns, manifest, naming, texts_of=_texts_of(spec))


def read_rows(spec: DataSpec, manifest: Manifest, unread: Unread) -> Parsed:
    """The rows of annotations as they are written; `unread` takes note of those of tables and EPIC-Kitchens' CSVs that
    are none. Raises BadInput for what is no annotations at all.
    """
    return _source(spec, manifest).read(unread)


def _place(source: _Source, row: int) -> str:
    """Where a row is in its file, which is read again for that: "line 3" as an editor shows it."""
    lines = source.read(None).lines
    return f"line {lines[row]}" if lines else f"row {row}"


def _source(spec: DataSpec, manifest: Manifest) -> _Source:
    classes = () if spec.classes is None else (spec.classes,)
    if spec.kind == "ego4d":
        own = pick_file(spec.path, _EGO4D_FILES[spec.split], what="Ego4D")
        files = (own, *spec.extra)
        return _Source(files=files, read=lambda _: read_ego4d(files))
    if spec.extra:
        raise BadInput(f"extra is {', '.join(map(str, spec.extra))}, and only ego4d has more than one file")
    if spec.kind == "egomcq":
        path = pick_file(spec.path, (EGOMCQ_NAME,), what="EgoMCQ")
        return _Source(files=(path,), read=lambda _: read_egomcq(path))
    if spec.kind in ("ek100_mir", "ek100_cls"):
        return _Source(files=action_files(spec), read=lambda unread: read_epic(spec, unread))
    if spec.kind == "table":
        return _Source(files=(*table_files(spec), *classes), read=lambda unread: read_table(spec, unread))
    if spec.kind == "class_folders":
        names = sorted(manifest.videos)
        return _Source(files=classes, read=lambda _: read_class_folders(spec, names), said=tuple(names))
    return _Source(files=(*list_files(spec), *classes), read=lambda _: read_list(spec))


def _texts_of(spec: DataSpec) -> TextsOf | None:
    """Training on EPIC-Kitchens' retrieval takes any sentence that is relevant to the clip (AVION)."""
    if spec.kind != "ek100_mir" or spec.split != "train":
        return None
    return relevant_texts(relevancy_of(clips_file(spec), sentences_file(spec)), sentences_file(spec))


def cache_folder() -> Path:
    """Where columns are kept unless another folder is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "framefeed" / "datasets"


def _columns(spec: DataSpec, source: _Source) -> Columns:
    cache = spec.cache or cache_folder()
    folder = cache / f"{spec.kind}-{spec.split}-{_key(spec, source)}"
    if (folder / HEAD_NAME).exists():
        return open_columns(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f"{folder.name}.lock"):
            if not (folder / HEAD_NAME).exists():
                _convert(folder, source)
    except OSError as error:
        raise BadInput(f"annotations cannot be converted in {cache}: {error.strerror}; wanted another cache") from None
    return open_columns(folder)


def _key(spec: DataSpec, source: _Source) -> str:
    """A name for what columns follow from, that reading no file gives."""
    said: list[object] = [VERSION, spec.kind, spec.split, str(spec.path), *source.said]
    for path in source.files:
        try:
            found = path.stat()
        except OSError as error:
            raise BadInput(f"annotations {path} cannot be read: {error.strerror}") from None
        said.append([str(path.resolve()), found.st_size, found.st_mtime_ns])
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()


def _convert(folder: Path, source: _Source) -> None:
    """Raises BadInput for annotations that are not what they should be, OSError."""
    for left in folder.parent.glob(f"{folder.name}.*{PART_SUFFIX}"):  # of a process that was killed: it had the lock
        shutil.rmtree(left, ignore_errors=True)
    began_s = time.monotonic()
    parsed = source.read(None)
    with new_columns(folder, parsed.labels) as writer:
        writer.add(parsed.rows)
        writer.finish(
            Meaning(
                has_text=parsed.has_text,
                labels=parsed.labels,
                classes=parsed.classes,
                fingerprint=_fingerprint(source),
                sources=tuple(map(str, source.files)),
            )
        )
    _log.info("annotations converted to %s in %.1f s", folder, time.monotonic() - began_s)


def _fingerprint(source: _Source) -> str:
    """Of the bytes of all files, whatever they are called. Raises OSError."""
    whole = hashlib.blake2b(json.dumps(source.said).encode(), digest_size=16)
    for path in source.files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return f"v1-{whole.hexdigest()}"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Within it no other process that asks for the same is. Whoever has it and dies lets go of it.

    Raises BadInput when another has had it for an hour, OSError.
    """
    began_s = noticed_s = time.monotonic()
    with path.open("wb") as file:
        while not _locked(file.fileno()):
            now_s = time.monotonic()
            if now_s - began_s > _PATIENCE_S:
                raise BadInput(f"another process has held {path} for {_PATIENCE_S:.0f} s; wanted it to convert, or end")
            if now_s - noticed_s > _NOTICE_S:
                noticed_s = now_s
                _log.warning("waiting for %.0f s: another process converts annotations (%s)", now_s - began_s, path)
            time.sleep(_LOOK_S)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
