"""What a recipe's user chooses about feeding, and the loader it makes; knows no task."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput, fields_named
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.buckets import Buckets
from trainer_client.feed.stand_ins import PoisonOptions, PoisonPolicy
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset
from trainer_client.training.compute import Compute
from trainer_client.transports.credentials import Credentials
from trainer_client.transports.transport import IO_THREADS

# Defaults are the loader's: declared there, or by their owner.
_LOADER = LoaderOptions(servers=("shm://@any",), batch_clips=1, local_ranks=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPlan:
    """What a run feeds on: the samples, the clips made of them, and for how many steps in which order.

    `batch_clips` are those of one step, of all processes together. `root` is where the videos are, for a server of
    this machine, and `logs` the folder that gets its log.
    """

    root: Path
    logs: Path
    dataset: Dataset
    policy: ClipPolicy | Buckets
    batch_clips: int
    seed: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """What a recipe's user chooses about feeding."""

    servers: tuple[str, ...] = (LOCAL,)
    """Decode servers: local, one for each process on this machine's spare CPUs, which ends with it. Or others, e.g.
    tcp://HOST:PORT or shm://@NAME; dns+tcp://HOST:PORT, every address of the name; or registry:///FOLDER, those that
    were started with --registry FOLDER. They may come, go and come back during the run.
    """
    local_cpus: int | None = None
    """CPUs of each process's own server. None: its even part of those that it may run on, but one."""
    prefetch_batches: int = _LOADER.prefetch_batches
    """Batches made ahead of the step that uses them."""
    prefetch_mib: int | None = None
    """Bound on the memory of batches made ahead, in MiB, of all ranks of this node together.
    None: a fourth of the memory that is there, at most 2048 a rank.
    """
    inflight_mib: int | None = None
    """Bound on the memory of clips asked for and not yet received, in MiB, of all ranks of this node together.
    None: a 32nd of the memory that is there, at most 256 a rank.
    """
    attempt_s: float = _LOADER.attempt_s
    """A clip may take so many seconds; a second server is asked sooner: after three times the p99 of recent answers."""
    attempt_min_s: float = _LOADER.attempt_min_s
    """But not before so many seconds."""
    hedge_share: float = _LOADER.hedge_share
    """A clip of the next batch that takes longer than 95 % has a second server asked, up to this share; 0 is never."""
    affinity_slack: float | None = _LOADER.affinity_slack
    """A part of a video is asked of the same server while its load is below 1 + this of the mean. None: no affinity."""
    watchdog_s: float = _LOADER.stall_s
    """Without any clip for so many seconds the run says who waits for what, and ends unless --on-stall is log."""
    on_stall: Literal["fail", "log"] = _LOADER.on_stall
    """What a standstill of --watchdog-s does: end the run, or only say so each time."""
    order: str = _LOADER.order
    """strict is plan order; with window:W a ready batch may overtake within W, and what was used when is recorded.
    window:W is for one rank: several would take different steps at a time, and is refused with them.
    """
    poison: PoisonPolicy = _LOADER.poison.policy
    """A clip no server can give ends the run, is replaced at its place, or (skip) is dropped for good."""
    poison_servers: int = _LOADER.poison.servers
    """So many different servers, or all there are, must have failed it."""
    poison_budget: float = _LOADER.poison.budget
    """So many samples a rank may do without: a count from 1 on, below it a share of all."""
    poison_list: Path | None = _LOADER.poison.folder
    """Folder that gets framefeed.quarantine.jsonl with the spans of such clips. Default: none is written."""
    look_every_s: float = _LOADER.look_every_s
    """The name or the folder is looked at for servers that came or went every so many seconds."""
    allow_mixed_decoders: bool = _LOADER.allow_mixed_decoders
    """Let servers with different decoder builds feed one run; its bytes then depend on who served them."""
    per_server_metrics: bool = _LOADER.per_server_metrics
    """Export how long requests took of each server apart: 17 series a server and rank."""
    run: str = _LOADER.run
    """Name of the run: servers share their time evenly between runs, and count requests by it."""
    io_threads: int = IO_THREADS
    """Threads that ZeroMQ receives and deciphers in, some 0.8 GB/s each (CURVE); a connection is one thread's."""
    credentials: Annotated[Credentials, tyro.conf.arg(name="")] = field(default_factory=Credentials)

    def __post_init__(self) -> None:
        for name in ("prefetch_mib", "inflight_mib"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"--{name.replace('_', '-')} is {value}, wanted at least 1")
        with _named():
            self._loader_options()

    def open(self, plan: FeedPlan, *, compute: Compute, registry: CollectorRegistry) -> ClipLoader:
        """A loader that gives the plan's batches, of which each rank has its share; closing it is the caller's.

        Raises BadInput for unusable options, and for a batch that does not divide among the ranks.
        """
        is_local = LOCAL in self.servers
        with _named():
            options = replace(
                self._loader_options(),
                root=plan.root if is_local else None,
                local_log=plan.logs if is_local else None,
                batch_clips=compute.ranks.share_of(plan.batch_clips),
                rank=compute.ranks.rank,
                world_size=compute.ranks.world,
                run_seed=plan.seed,
                steps=plan.steps,
            )
            return ClipLoader(plan.dataset, plan.policy, options, registry=registry, allocate=compute.allocate)

    def _loader_options(self) -> LoaderOptions:
        """What is chosen, for any plan."""
        with fields_named(servers="poison_servers", budget="poison_budget"):
            poison = PoisonOptions(
                policy=self.poison,
                servers=self.poison_servers,
                budget=self.poison_budget,
                folder=self.poison_list,
            )
        return LoaderOptions(
            servers=self.servers,
            root=Path() if LOCAL in self.servers else None,
            local_cpus=self.local_cpus,
            batch_clips=1,
            prefetch_batches=self.prefetch_batches,
            prefetch_bytes=None if self.prefetch_mib is None else self.prefetch_mib << 20,
            inflight_bytes=None if self.inflight_mib is None else self.inflight_mib << 20,
            attempt_s=self.attempt_s,
            attempt_min_s=self.attempt_min_s,
            hedge_share=self.hedge_share,
            affinity_slack=self.affinity_slack,
            stall_s=self.watchdog_s,
            on_stall=self.on_stall,
            order=self.order,
            poison=poison,
            look_every_s=self.look_every_s,
            allow_mixed_decoders=self.allow_mixed_decoders,
            per_server_metrics=self.per_server_metrics,
            run=self.run,
            io_threads=self.io_threads,
            credentials=self.credentials,
        )


def _named() -> AbstractContextManager[None]:
    """What is wrong with the loader's fields is said of these."""
    return fields_named(stall_s="watchdog_s", prefetch_bytes="prefetch_mib", inflight_bytes="inflight_mib")
