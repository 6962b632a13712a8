"""Rows of features as one file: safetensors, or Parquet where pyarrow is installed. It knows no model and no folder.

safetensors: `features` (R, …), float64 `start_s` and `end_s`, int64 `index` into the data set, int32 `video` into the
list `videos` of the metadata, one float32 array for each measure of CONTENT, and `found`, 0 for a clip that no server
could give: its features and measures are NaN. The metadata's one key, framefeed, is JSON.
Parquet: the same as columns, `video` as text, `features` as a list, those of a clip that is not there null.

Equal rows make equal bytes. Axes: R rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from framefeed.errors import BadInput
from trainer_client.extract.content import CONTENT
from trainer_client.samples import Sample

Format = Literal["safetensors", "parquet"]
KEY = "framefeed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """`features` (R, …) float32 or float16, `content` float32 (R, 2) in the order of CONTENT, `found` bool (R,), of
    the samples from index `first` on.
    """

    first: int
    samples: Sequence[Sample]
    features: npt.NDArray[np.floating[Any]]
    content: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """All but features and names."""
        return {
            "index": np.arange(self.first, self.first + len(self.samples), dtype=np.int64),
            "start_s": np.array([sample.start_s for sample in self.samples]),
            "end_s": np.array([sample.end_s for sample in self.samples]),
            "found": self.found.astype(np.uint8),
            **{name: np.ascontiguousarray(self.content[:, at]) for at, name in enumerate(CONTENT)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """How shards are spelled: `encode` makes a file's bytes of rows and what is said of them, `said` reads that again
    with the number of rows, and raises ValueError, with a line, for what is no whole file.
    """

    suffix: str
    encode: Callable[[Rows, Mapping[str, object]], bytes]
    said: Callable[[Path], tuple[int, Mapping[str, object]]]


def shard_file(form: Format) -> ShardFile:
    """The way to spell shards. Raises BadInput for one whose package is not installed."""
    if form == "safetensors":
        return ShardFile(suffix="safetensors", encode=_safetensors, said=_said_in_safetensors)
    try:
        import pyarrow  # noqa: F401, PLC0415 - an extra, asked for before any clip is
    except ModuleNotFoundError:
        raise BadInput(
            "--format is parquet, which needs the package pyarrow; pip install 'framefeed[parquet]', or --format "
            "safetensors"
        ) from None
    return ShardFile(suffix="parquet", encode=_parquet, said=_said_in_parquet)


def _safetensors(rows: Rows, said: Mapping[str, object]) -> bytes:
    videos = sorted({sample.video for sample in rows.samples})
    number = {video: at for at, video in enumerate(videos)}
    tensors = {
        "features": np.ascontiguousarray(rows.features),
        "video": np.array([number[sample.video] for sample in rows.samples], np.int32),
        **rows.columns,
    }
    return save(tensors, {KEY: json.dumps({**said, "videos": videos})})


def _said_in_safetensors(path: Path) -> tuple[int, Mapping[str, object]]:
    try:
        with safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {}).get(KEY, ""))
            return file.get_slice("features").get_shape()[0], said
    except (OSError, SafetensorError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def _parquet(rows: Rows, said: Mapping[str, object]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    missing = ~rows.found
    width = int(np.prod(rows.features.shape[1:]))
    values = pa.array(np.ascontiguousarray(rows.features).reshape(-1))
    table = pa.table(
        {
            "video": pa.array([sample.video for sample in rows.samples], pa.string()),
            **{name: pa.array(column) for name, column in rows.columns.items() if name not in (*CONTENT, "found")},
            **{name: pa.array(rows.columns[name], mask=missing) for name in CONTENT},
            "features": pa.FixedSizeListArray.from_arrays(values, width, mask=pa.array(missing)),
        }
    )
    spelled = table.replace_schema_metadata({KEY: json.dumps({**said, "shape": rows.features.shape[1:]})})
    file = io.BytesIO()
    parquet.write_table(spelled, file)
    return file.getvalue()


def _said_in_parquet(path: Path) -> tuple[int, Mapping[str, object]]:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    try:
        found = parquet.read_metadata(path)
        return found.num_rows, json.loads((found.metadata or {}).get(KEY.encode(), b""))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
