"""Batches on the device that trains, some ahead of the step that uses them; knows pixels and seeds, not tasks.

What a task makes of a batch on the host (tokens, masks, labels), the draws of its augmentation and its colour maps are
made by a thread of its own, which also begins the copies: the training thread takes what is ready. Which batches there
are, and waiting for them, is the training thread's: it takes those that a loader has ready without waiting, and waits
for one only when it has none left, so that what the loader counts as waiting is the trainer's wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from framefeed.errors import FramefeedError
from framefeed_models.pixel_norm import PixelNorm
from trainer_client.feed.batch import Batch
from trainer_client.feed.slots import lend
from trainer_client.training.augment.augment import augment_clips, host_draws
from trainer_client.training.augment.one_pass import Pass
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.copies import Copies, Copying, copying_to

AHEAD = 2
_PREPARED_S = 600.0  # a batch of the largest size takes milliseconds
_PIXELS, _SEEDS = "pixels", "seeds_B"

HostWork = Callable[[Batch], Mapping[str, Tensor]]
"""What a task makes of a batch on the host: tensors whose first axis is the clips, by name."""


class HostFailure(FramefeedError):
    """What a batch needs beside its pixels was not ready in time."""

    code = "host_failure"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceBatch:
    """A batch and, on the device, its `pixels` as in Batch and its seeds as int64 of the same bits.

    `draws` are those of its augmentation, by name, and for YUV the colour maps; `own` what its task has made on the
    host, None where nobody has. Clips come out of it in `dtype`.
    """

    batch: Batch
    pixels: Tensor
    seeds_B: Tensor
    draws: Mapping[str, Tensor]
    own: Mapping[str, Tensor] | None = None
    options: AugmentOptions = field(default_factory=AugmentOptions)
    dtype: torch.dtype = torch.float32

    def normalised(self, norm: PixelNorm) -> Tensor:
        """The clips, augmented, as (B, C, T, Y, X) of its dtype on the device. Waits for nothing."""
        what = Pass(norm=norm, dtype=self.dtype, noise=self.options.erase_noise)
        return augment_clips(self.pixels, self.draws, self.seeds_B, what=what)

    def made_by(self, work: HostWork) -> Mapping[str, Tensor]:
        """What a task's host work has made of the batch, on the device: ahead of time, or now if nobody has."""
        if self.own is not None:
            return self.own
        return {name: tensor.to(self.pixels.device, non_blocking=True) for name, tensor in work(self.batch).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """What is done with each batch before it is copied. `augment`: what is drawn; `dtype`: in what clips come out."""

    work: HostWork | None = None
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    dtype: torch.dtype = torch.float32

    def host_tensors(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Everything that goes to the device, by what it is for. Raises BadInput for what the task refuses."""
        return {
            "": {_PIXELS: torch.from_numpy(batch.pixels), _SEEDS: torch.from_numpy(batch.seeds.view(np.int64))},
            "draws": host_draws(self.augment, batch),
            "own": {} if self.work is None else dict(self.work(batch)),
        }

    def begin(self, batch: Batch, copying: Copying) -> _Sent:
        """Prepare a batch and begin to copy it; its slot is lent until that is done."""
        parts = self.host_tensors(batch)
        copies = copying.begin({f"{part}.{name}": t for part, named in parts.items() for name, t in named.items()})
        if copies.done is not None:
            lend(batch.pixels, until=copies.done)
        return _Sent(batch=batch, copies=copies)

    def finish(self, sent: _Sent, copying: Copying) -> DeviceBatch:
        """The batch, for the calling thread's stream."""
        copying.arrive(sent.copies)
        parts = dict[str, dict[str, Tensor]]()
        for name, tensor in sent.copies.tensors.items():
            part, _, short = name.partition(".")
            parts.setdefault(part, {})[short] = tensor
        return DeviceBatch(
            batch=sent.batch,
            pixels=parts[""][_PIXELS],
            seeds_B=parts[""][_SEEDS],
            draws=parts.get("draws", {}),
            own=None if self.work is None else parts.get("own", {}),
            options=self.augment,
            dtype=self.dtype,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sent:
    batch: Batch
    copies: Copies


def to_device(batch: Batch, device: torch.device, preparing: Preparing | None = None) -> DeviceBatch:
    """One batch, prepared and copied by the calling thread; its stream waits for the copy, it does not."""
    preparing, copying = preparing or Preparing(), copying_to(device)
    return preparing.finish(preparing.begin(batch, copying), copying)


class Source(Protocol):
    """Where batches come from: a loader."""

    def __next__(self) -> Batch: ...

    @property
    def is_ready(self) -> bool:
        """Whether next() would not wait."""
        ...


class DeviceFeed:
    """Up to `ahead` batches on the device beside the one that is used. One thread uses it, within its `with`.

    What is ahead stays when the `with` is left, and is used first in the next one. `clear` forgets it.
    """

    def __init__(
        self,
        source: Source,
        preparing: Preparing,
        *,
        device: torch.device,
        ahead: int = AHEAD,
        copying: Copying | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._preparing, self._ahead = source, preparing, ahead
        self._copying = copying_to(device) if copying is None else copying
        self.waited_s = 0.0
        """For how long the last take() was blocked."""
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._taken = deque[Batch]()
        self._sent = deque[Future[_Sent]]()  # of the first of those that are taken

    def __enter__(self) -> DeviceFeed:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="framefeed-device-feed")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._thread is not None:
            self._thread.shutdown()  # what it was given takes milliseconds, and is kept
            self._thread = None

    def __len__(self) -> int:
        return len(self._taken)

    def fill(self, *, most: int) -> None:
        """Take batches that are ready, up to `ahead` beside the next one and `most` in all. Never waits for one.

        What the source raises is kept for when its turn comes: next() of it raises it again.
        """
        self._send()
        while len(self._taken) < min(1 + self._ahead, most) and self._source.is_ready:
            try:
                self._take_next()
            except (FramefeedError, StopIteration):
                return
            self._send()

    def fetch(self, within: AbstractContextManager[None] | None = None) -> None:
        """Have at least one batch. Blocks and raises as next() of the source does, which is called `within` that alone:
        what a signal's handler may raise there must not meet a lock of ours.
        """
        if not self._taken:
            with within or nullcontext():
                self._take_next()
        self._send()

    def take(self) -> DeviceBatch:
        """The batch whose turn it is, on the device, after fetch().

        Blocks for as long as it is still being prepared, milliseconds; does not wait for the copy. Raises BadInput if
        its task refuses it, HostFailure if it is not prepared within 600 s. It stays the next one if it raises.
        """
        began_s = self._clock()
        try:
            sent = self._sent[0].result(timeout=_PREPARED_S)
        except TimeoutError:
            raise HostFailure(f"device feed: a batch is not prepared within {_PREPARED_S:.0f} s") from None
        self.waited_s = self._clock() - began_s
        ready = self._preparing.finish(sent, self._copying)
        del self._sent[0], self._taken[0]  # from here to where the caller goes on CPython runs no signal's handler
        return ready

    def drop(self) -> None:
        """Let that batch go unused."""
        if self._sent:
            del self._sent[0]
        del self._taken[0]

    def clear(self) -> None:
        """Forget what is ahead: the source stands somewhere else now."""
        none_taken, none_sent = deque[Batch](), deque[Future[_Sent]]()
        self._taken, self._sent = none_taken, none_sent  # at once, for a signal's handler

    def _take_next(self) -> None:
        """Have one batch more. Raises as next() of the source does."""
        count = len(self._taken)
        # Not `append(next(...))`: between two calls a signal's handler may raise, and the batch would be lost.
        self._taken.extend(map(next, (self._source,)))
        if len(self._taken) == count:
            raise StopIteration

    def _send(self) -> None:
        """Have what is taken prepared."""
        assert self._thread is not None, "used outside its with"
        while len(self._sent) < len(self._taken):
            self._sent.append(self._thread.submit(self._preparing.begin, self._taken[len(self._sent)], self._copying))
