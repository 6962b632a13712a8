"""A folder of shards that are whole or not there, written in the data set's order: where an extraction goes on from.

OUT/extract.json says what they are of, and a folder of anything else is refused; shard k of n, named
features-k-of-n, has rows k x `shard_rows` and on. So what is in a shard follows from its number alone, and a folder
that was written by three processes, two of which were killed, is the folder of one. It knows no model and no server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from framefeed.errors import BadInput, StorageFault
from framefeed.new_file import NewFile, drop_leftovers, write_whole
from trainer_client.extract.shard_files import Rows, ShardFile
from trainer_client.training.part_writer import Background

HEAD_NAME = "extract.json"
VERSION = 1
_STORAGE_S = 600.0  # that storage has for one shard


class ShardFolder:
    """The shards of a data set of `samples` samples. One process writes; any may ask where to go on."""

    def __init__(self, folder: Path, form: ShardFile, *, samples: int, shard_rows: int) -> None:
        if shard_rows < 1:
            raise BadInput(f"--shard-rows is {shard_rows}, wanted at least 1")
        self._folder, self._form = folder, form
        self._samples, self._shard_rows = samples, shard_rows
        self.shards = -(-samples // shard_rows)
        self._writing: Background | None = None
        self._head = b""  # what extract.json is to say, until it does

    def open(self, of: Mapping[str, object]) -> None:
        """See that the folder says what its shards are `of`, or is free to: it does so with its first shard.

        Raises BadInput for a folder that cannot be written, or says something else, naming both values.
        """
        said = json.loads(json.dumps({"framefeed_extract": VERSION, **of}))
        path = self._folder / HEAD_NAME
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            drop_leftovers(self._folder)
            found = json.loads(path.read_bytes()) if path.exists() else None
            if found is None:
                self._refuse_others()
                NewFile(path).close()  # a folder that cannot be written is refused before the work
                self._head = json.dumps(said, indent=1).encode() + b"\n"
                return
        except OSError as error:
            raise BadInput(f"--out {self._folder} cannot be used: {error.strerror}") from None
        except ValueError as error:
            raise BadInput(f"--out {self._folder}: {HEAD_NAME} is no JSON: {str(error)[:200]}") from None
        found = found if isinstance(found, dict) else {}
        for name in sorted({*said, *found}):
            if said.get(name) != found.get(name):
                raise BadInput(
                    f"--out {self._folder} has features of something else: {name} was {str(found.get(name))[:200]} and "
                    f"is {str(said.get(name))[:200]}; wanted the same or another --out"
                )

    def whole(self) -> tuple[int, Mapping[str, object], str]:
        """How many shards from the first on are there, what the last of them says, and why the next is not, if it is
        there and no whole file."""
        said: Mapping[str, object] = {}
        for number in range(self.shards):
            path = self.path(number)
            if not path.exists():
                return number, said, ""
            try:
                rows, found = self._form.said(path)
                if rows != self.rows_of(number):
                    raise ValueError(f"it has {rows} rows, wanted {self.rows_of(number)}")
            except ValueError as error:
                return number, said, f"{path.name} is no whole shard ({error}) and is made again"
            said = found
        return self.shards, said, ""

    def path(self, number: int) -> Path:
        """Of a shard."""
        return self._folder / f"features-{number:05d}-of-{self.shards:05d}.{self._form.suffix}"

    def rows_of(self, number: int) -> int:
        """How many rows a shard has."""
        return min(self._shard_rows, self._samples - number * self._shard_rows)

    def write(self, rows: Rows, said: Mapping[str, object]) -> None:
        """Begin to write the shard of these rows, once the one before is on storage: at most two are in memory.

        Raises StorageFault if the one before could not be written, or not within 600 s.
        """
        self.settle()
        path, head, self._head = self.path(rows.first // self._shard_rows), self._head, b""

        def write() -> None:
            if head:
                write_whole(self._folder / HEAD_NAME, head)
            write_whole(path, self._form.encode(rows, said))

        self._writing = Background(write, what=f"--out {self._folder}: {path.name}")

    def settle(self) -> None:
        """Return when all that was begun is on storage. Raises as `write` does."""
        writing, self._writing = self._writing, None
        if writing is not None and not writing.done(wait_s=_STORAGE_S):
            raise StorageFault(f"--out {self._folder}: a shard is not on storage within {_STORAGE_S:.0f} s")

    def _refuse_others(self) -> None:
        if strange := next(iter(sorted(path.name for path in self._folder.iterdir())), ""):
            raise BadInput(f"--out {self._folder} has {strange} and no {HEAD_NAME}; wanted a new folder, or its own")
