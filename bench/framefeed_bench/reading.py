"""Clips read from one server by the product's own loader, or decoded without one: timed, in a process of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from framefeed.crops import RandomResizedCrop
from framefeed.errors import FramefeedError
from framefeed.sampling import Segments
from framefeed_bench.one_core import children_of, command_of, cpu_s, own_cpu_s
from framefeed_bench.ready_worker import ready_bytes
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.credentials import Credentials


def policy_of(frames: int) -> ClipPolicy:
    """Clips of so many frames of 224x224."""
    sampling = Segments(frames=frames, jitter=True)
    return ClipPolicy(sampling=sampling, crop=RandomResizedCrop(), width_px=224, height_px=224)


POLICY = policy_of(4)
BATCH_CLIPS, PREFETCH_BATCHES = 16, 3
RUN_SEED = 1
_WARM_BATCHES = 10
READY_SAMPLES = tuple(Sample(video="ready", start_s=i, end_s=i + 1.0) for i in range(64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What reading took. CPU is of the client's whole process, of the server's processes, and of those among them that
    do not decode: the front and its gateways.
    """

    clips: int
    wall_s: float
    client_cpu_s: float
    feed_cpu_s: float
    server_cpu_s: float
    front_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Read `clips` clips of the samples, in order, from the server with this process id; picklable."""

    url: str
    pid: int
    clips: int
    samples: Sequence[Sample]
    ready: bool  # every clip must be the ready one
    policy: ClipPolicy = POLICY
    credentials: Credentials = field(default_factory=Credentials)

    def __call__(self) -> Read:
        """Raises FramefeedError if a clip is not what it should be."""
        batches = _WARM_BATCHES + math.ceil(self.clips / BATCH_CLIPS)
        options = LoaderOptions(
            servers=[self.url],
            batch_clips=BATCH_CLIPS,
            run_seed=RUN_SEED,
            steps=batches,
            prefetch_batches=PREFETCH_BATCHES,
            stall_s=30.0,
            credentials=self.credentials,
        )
        with ClipLoader(self.samples, self.policy, options) as loader:
            for _ in range(_WARM_BATCHES):
                self._prove(next(loader).pixels)
            wall_s, client_s, server_s = time.perf_counter(), time.process_time(), cpu_s(self.pid)
            front_s = _front_cpu_s(self.pid)
            feed_s, before = loader.stats.receive_cpu_s, loader.stats.used
            for batch in loader:
                last = batch.pixels
            stats = loader.stats
            read = Read(
                clips=stats.used - before,
                wall_s=time.perf_counter() - wall_s,
                client_cpu_s=time.process_time() - client_s,
                feed_cpu_s=stats.receive_cpu_s - feed_s,
                server_cpu_s=cpu_s(self.pid) - server_s,
                front_cpu_s=_front_cpu_s(self.pid) - front_s,
            )
            self._prove(last)
        return read

    def _prove(self, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        if self.ready and not (pixels.reshape(len(pixels), -1) == ready_bytes(self.policy.clip_bytes)).all():
            raise FramefeedError(f"bench: {self.url} gave other bytes than were ready")


def _front_cpu_s(pid: int) -> float:
    gateways = [child for child in children_of(pid) if "listeners.gateway" in command_of(child)]
    return sum(own_cpu_s(process) for process in (pid, *gateways))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Decode the first clips that a Reading of these samples would read, without any server; picklable."""

    root: Path
    samples: Sequence[Sample]
    clips: int

    def __call__(self) -> float:
        """Wall seconds."""
        sampler = Sampler(samples=len(self.samples), run_seed=RUN_SEED, share=Share(batch_clips=self.clips))
        places = sampler.batch(0)
        pairs = zip(places.indices.tolist(), places.seeds.tolist(), strict=True)
        requests = [POLICY.request(self.samples[index], seed) for index, seed in pairs]
        engine = Engine(Library(self.root))
        out = memoryview(bytearray(POLICY.clip_bytes))
        for request in requests[:BATCH_CLIPS]:
            engine.decode(request, out)
        began_s = time.perf_counter()
        for request in requests:
            engine.decode(request, out)
        return time.perf_counter() - began_s
