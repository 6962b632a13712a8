"""Batches that are made into something else as they are given: a `map` that loses none to a signal's handler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from trainer_client.feed.batch import Batch

Made = TypeVar("Made")


class Gives(Protocol):
    """A loader."""

    def give(self, make: Callable[[Batch], Made]) -> Made:
        """What `make` makes of the next batch."""
        ...


class Given(Iterator[Made]):
    """What `make` makes of each batch; see ClipLoader.made_by()."""

    def __init__(self, loader: Gives, make: Callable[[Batch], Made]) -> None:
        self._loader, self._make = loader, make

    def __next__(self) -> Made:
        return self._loader.give(self._make)
