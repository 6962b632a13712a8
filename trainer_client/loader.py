"""ClipLoader: batches of clips from decode servers, in plan order, with a state to resume from.

The public face of feeding: it checks what the user gives, builds the parts and runs the feed. NumPy only, no torch; it
decides nothing about servers or order itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput
from trainer_client.addresses import check_servers
from trainer_client.batch import Batch
from trainer_client.clip_policy import ClipPolicy
from trainer_client.connection import ZmqWire
from trainer_client.dispatch import Dispatch, DispatchLimits
from trainer_client.feed import Feed, Parts
from trainer_client.fleet import Fleet, FleetLimits
from trainer_client.metrics import FeedCollector
from trainer_client.prefetch import BatchPlan, Prefetch
from trainer_client.sampler import Sampler, Share
from trainer_client.samples import Dataset
from trainer_client.slots import Allocate, SlotPool, ordinary_memory
from trainer_client.stats import FeedStats, Ledger, Standing, snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What a user chooses about feeding.

    `servers` are tcp://HOST:PORT; `batch_clips` is per rank. The run ends after `steps` steps or `epochs` epochs, or
    never. Prefetched batches are at most `prefetch_batches` and `prefetch_bytes`; clips asked for and not yet received
    at most `inflight_bytes`; client memory is bounded by the sum of both and the batches that the user holds. A clip is
    asked of another server after `attempt_s`; without any clip for `stall_s` the run fails and says who waits for what.
    """

    servers: Sequence[str]
    batch_clips: int
    run_seed: int = 0
    rank: int = 0
    world_size: int = 1
    steps: int | None = None
    epochs: float | None = None
    prefetch_batches: int = 8
    prefetch_bytes: int = 2 << 30
    inflight_bytes: int = 256 << 20
    attempt_s: float = 10.0
    stall_s: float = 120.0
    allow_mixed_decoders: bool = False

    def __post_init__(self) -> None:
        check_servers(self.servers)
        if self.steps is not None and self.epochs is not None:
            raise BadInput(f"loader: steps is {self.steps} and epochs is {self.epochs:g}; wanted at most one of them")
        for name in ("steps", "epochs"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise BadInput(f"loader: {name} is {value}, wanted at least 0")
        if self.prefetch_batches < 1:
            raise BadInput(f"loader: prefetch_batches is {self.prefetch_batches}, wanted at least 1")

    def depth_batches(self, clip_bytes: int) -> int:
        """How many batches of such clips are prefetched. Raises BadInput when a budget does not hold what it must."""
        batch_bytes = clip_bytes * self.batch_clips
        if self.prefetch_bytes < batch_bytes:
            raise BadInput(
                f"loader: prefetch_bytes is {self.prefetch_bytes}, less than one batch: {self.batch_clips} clips of "
                f"{clip_bytes} bytes are {batch_bytes}"
            )
        if self.inflight_bytes < clip_bytes:
            raise BadInput(f"loader: inflight_bytes is {self.inflight_bytes}, less than one clip of {clip_bytes} bytes")
        return min(self.prefetch_batches, self.prefetch_bytes // batch_bytes)


class ClipLoader:
    """An iterator of Batch in strict plan order: the same batches from any servers, whatever fails on the way.

    It begins to prefetch at the first next() and may begin before its servers do. After an error that ended the feed,
    load_state_dict(state_dict()) makes it try again from the batch that was next. Use it in a `with`, or close() it.
    One thread iterates; any thread may read `stats`.
    """

    def __init__(
        self,
        dataset: Dataset,
        policy: ClipPolicy,
        options: LoaderOptions,
        *,
        registry: CollectorRegistry | None = None,
        allocate: Allocate = ordinary_memory,
    ) -> None:
        """`registry` gets the feed's metrics until close(); `allocate` makes the memory of batch slots (pinned, say).

        Raises BadInput, in one line, for options that contradict themselves, the dataset or the size of a clip, and
        ValueError for a registry that has a feed already: one feed a registry.
        """
        share = Share(batch_clips=options.batch_clips, rank=options.rank, world_size=options.world_size)
        self._dataset, self._policy, self._options = dataset, policy, options
        self._sampler = Sampler(samples=len(dataset), run_seed=options.run_seed, share=share)
        self._depth_batches = options.depth_batches(policy.clip_bytes)
        self._limits = DispatchLimits(
            attempt_s=options.attempt_s, stall_s=options.stall_s, inflight_bytes=options.inflight_bytes
        )
        shape = (options.batch_clips, *policy.shape)
        self._slots = SlotPool(shape, spare=self._depth_batches + 1, allocate=allocate)
        self._ledger = Ledger()
        self._feed: Feed | None = None
        self._step = 0
        self._fingerprint: str | None = None
        self._closed = False
        self._registry = registry
        self._collector = FeedCollector(lambda: self.stats)
        if registry is not None:
            registry.register(self._collector)

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, the same for all ranks; None if it has no end."""
        if self._options.epochs is not None:
            return self._sampler.steps_in(self._options.epochs)
        return self._options.steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps that use every sample once; where the global batch does not divide them, the last begins anew."""
        return self._sampler.steps_in(1)

    @property
    def stats(self) -> FeedStats:
        """The counts so far, over all restarts. Blocks for microseconds; safe from any thread, also after close()."""
        feed = self._feed
        return feed.stats() if feed is not None else snapshot(self._ledger, Standing(), rank=self._options.rank)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. Blocks while its clips are on their way, for at most `stall_s` without any progress.

        Raises the Permanent error of a clip that no server can give, at its batch and again at every call (the message
        names video, span and server); Stalled when nothing came for `stall_s`; BadInput for servers that decode
        differently; RuntimeError after close(), or if the feed's thread died.
        """
        if self._closed:
            raise RuntimeError("the loader is closed")
        if self.steps is not None and self._step >= self.steps:
            raise StopIteration
        if self._feed is None:
            self._feed = self._start()
        batch = self._feed.next_batch()
        if batch is None:
            raise StopIteration
        self._step = batch.step + 1
        return batch

    def state_dict(self) -> dict[str, int | str | None]:
        """Where the run stands: after the batches that next() delivered. What is prefetched beyond is not in it."""
        return self.state_after(self._step)

    def state_after(self, steps: int) -> dict[str, int | str | None]:
        """The state of the run once `steps` steps are done: for a consumer that holds batches it has not used yet."""
        if self._feed is not None:
            self._fingerprint = self._feed.fingerprint
        return {**self._sampler.state_at(steps), "decoder_fingerprint": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where the run with this state stood; what is prefetched is discarded. Blocks as close() does.

        Raises BadInput, naming both values, when run seed, number of samples or global batch differ; servers with
        another decoder than the run's are refused when they show themselves.
        """
        step = self._sampler.step_of(state)
        fingerprint = state.get("decoder_fingerprint")
        if fingerprint is not None and not isinstance(fingerprint, str):
            raise BadInput(f"resume: decoder_fingerprint is {fingerprint!r}, wanted a string or nothing")
        self._stop()
        self._feed = None
        self._step, self._fingerprint = step, fingerprint

    def close(self) -> None:
        """Stop prefetching and let the servers go. Idempotent; blocks for at most 5 s. Batches held stay valid.

        Raises RuntimeError if the feed's thread does not end in that time.
        """
        if self._closed:
            return
        self._closed = True
        if self._registry is not None:
            with suppress(KeyError):  # the user took it out already
                self._registry.unregister(self._collector)
        self._stop()

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        o = self._options
        return (
            f"ClipLoader(step {self._step} of {self.steps}, rank {o.rank} of {o.world_size}, {o.batch_clips} clips of "
            f"{self._policy.shape} a batch, {self._depth_batches} batches ahead, {len(o.servers)} servers)"
        )

    def _stop(self) -> None:
        if self._feed is not None:
            self._feed.close()

    def _start(self) -> Feed:
        options = self._options
        urls = check_servers(options.servers)
        fleet = Fleet(
            urls,
            limits=FleetLimits(allow_mixed_decoders=options.allow_mixed_decoders),
            seed=options.run_seed ^ options.rank,
            fingerprint=self._fingerprint,
            now_s=time.monotonic(),
        )
        parts = Parts(
            fleet=fleet,
            dispatch=Dispatch(fleet, self._limits, ledger=self._ledger),
            prefetch=Prefetch(self._slots, depth_batches=self._depth_batches),
            ledger=self._ledger,
            rank=options.rank,
            stall_s=options.stall_s,
        )
        clip_bytes = self._policy.clip_bytes
        feed = Feed(
            self._plan(self._step), parts, open_wire=lambda wake: ZmqWire(urls, wake=wake, clip_bytes=clip_bytes)
        )
        feed.start()
        _log.info("feeding from step %d: %r", self._step, self)
        return feed

    def _plan(self, step: int) -> Iterator[BatchPlan]:
        """The batches from a step on, as the feed's thread wants them."""
        while self.steps is None or step < self.steps:
            places = self._sampler.batch(step)
            samples = tuple(self._dataset[index] for index in places.indices.tolist())
            pairs = zip(samples, places.seeds.tolist(), strict=True)
            requests = tuple(self._policy.request(sample, seed) for sample, seed in pairs)
            yield BatchPlan(places=places, samples=samples, requests=requests)
            step += 1
