"""LoaderOptions: what a user chooses about feeding, each value checked by its name when it is given. Knows no feed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from framefeed.errors import BadInput, BadRequest
from framefeed.manifest import check_indexed
from framefeed.option_types import settle_types, shown
from framefeed.wire import WorkClass, check_run
from framefeed.zmtp import MAX_IO_THREADS
from trainer_client.feed.order import window_of
from trainer_client.feed.stand_ins import PoisonOptions
from trainer_client.fleet.addresses import LOCAL, check_servers
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import FleetLimits
from trainer_client.fleet.timeout_estimator import TimeoutLimits
from trainer_client.local_plan import plan_local
from trainer_client.local_server import LocalServer, this_machine
from trainer_client.memory_budgets import NodeBudgets, RankBudgets, check_batch, rank_budgets
from trainer_client.node_memory import local_ranks, node_memory_bytes
from trainer_client.rank_environment import RankOf, rank_of
from trainer_client.transports.credentials import Credentials
from trainer_client.transports.transport import IO_THREADS

_log = logging.getLogger(__name__)

# Each option's default is declared once, by its owner.
_DISPATCH, _FLEET = DispatchLimits(), FleetLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What a user chooses about feeding.

    `servers` are addresses; dns+ before one means every address of its name, looked up every `look_every_s`, and
    registry:///FOLDER the servers that have an entry there, looked at as often. "local" is a server of `root`, an
    indexed folder of videos, that the loader starts on this machine and ends with itself: on `local_cpus` CPUs, None
    for all of this rank's even part of the node but one; its log goes to the folder `local_log`, or to a file that a
    log line names. `batch_clips` is per rank. `rank` and
    `world_size` are what torchrun says (RANK, WORLD_SIZE) unless they are given, and 0 of 1 without either. The run
    ends after `steps` steps or `epochs` epochs, or never. Without `shuffle` every epoch is in the dataset's order.
    `dataset_identity` is the data set that the samples are of (Manifest.identity); None is what the dataset says, and
    where that says nothing, the data set of most servers.

    Prefetched batches are at most `prefetch_batches` a rank; the memory of prefetched batches at most `prefetch_bytes`
    and that of clips asked for and not yet received at most `inflight_bytes`, of all `local_ranks` ranks of this node
    together: each has an even part. None is a fourth and a 32nd of the memory that is there when the loader is made, at
    most 2 GiB and 256 MiB a rank, at least one batch and one clip. Client memory is bounded by the sum of both and the
    batches that the user holds. `local_ranks` is what torchrun says (LOCAL_WORLD_SIZE), else 1.

    A clip is asked of a second server after three times the p99 of recent answers, from `attempt_min_s` to
    `attempt_s`; from one that lives it may take `attempt_s`. One of the oldest batch is asked of a second server when
    it takes longer than 95 % do, for up to `hedge_share` of all requests, and a clip that lost an attempt of two at
    once. Each part of a video has a home among the servers, passed over when its load would be more than
    1 + `affinity_slack` of the mean; None is no homes. Storage that fails is tried again, ever more rarely; its clip is
    held to be bad after half of `stall_s` in which others came through. Without any clip for `stall_s` the run says who
    waits for what, and fails or goes on as `on_stall` says.

    Servers with another data set, decoder or version than most, or than the run began with, are not used; neither are
    those without room for a clip. The run ends when all there are have been such for `member_grace_s`; as long are
    servers that are away waited for before the others' word on a bad clip is final. `run` and `work_class` are told to
    the servers, which share their time between runs and serve evaluations first.

    `order` is "strict", the plan's, or "window:W": a batch that is ready may overtake, if fewer than W batches lie
    between it and the oldest that is not; for one rank only, as several would take different steps. Batches themselves
    are the same, each is used once, and which was used when is in the state. `poison` says what becomes of clips that
    no server can give; batches keep their shape whatever it says, and ranks their steps. `io_threads` are ZeroMQ's,
    over which tcp:// connections are spread.
    """

    servers: Sequence[str]
    batch_clips: int
    root: Path | None = None
    local_cpus: int | None = None
    local_log: Path | None = None
    run_seed: int = 0
    rank: int | None = None
    world_size: int | None = None
    steps: int | None = None
    epochs: float | None = None
    shuffle: bool = True
    prefetch_batches: int = 8
    prefetch_bytes: int | None = None
    inflight_bytes: int | None = None
    local_ranks: int = field(default_factory=local_ranks)
    attempt_s: float = _DISPATCH.timeouts.attempt_s
    attempt_min_s: float = _DISPATCH.timeouts.attempt_min_s
    hedge_share: float = _DISPATCH.hedge_share
    affinity_slack: float | None = _FLEET.affinity_slack
    stall_s: float = _DISPATCH.stall_s
    on_stall: Literal["fail", "log"] = "fail"
    look_every_s: float = 5.0
    allow_mixed_decoders: bool = False
    member_grace_s: float = _FLEET.member_grace_s
    run: str = _DISPATCH.run
    work_class: WorkClass = _DISPATCH.work_class
    io_threads: int = IO_THREADS
    credentials: Credentials = field(default_factory=Credentials)
    order: str = "strict"
    poison: PoisonOptions = field(default_factory=PoisonOptions)
    per_server_metrics: bool = False
    dataset_identity: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", check_servers(self.servers))
        settle_types(self, what="loader")
        self._check_local()
        if self.steps is not None and self.epochs is not None:
            raise BadInput(f"loader: steps is {self.steps} and epochs is {self.epochs:g}; wanted at most one of them")
        for name in ("steps", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                wanted = "at least 0 and finite, or None for a run without end"
                raise BadInput(f"is {value}, wanted {wanted}", of="loader", field=name)
        if not self.look_every_s > 0:
            raise BadInput(f"is {self.look_every_s:g}, wanted more than 0 seconds", of="loader", field="look_every_s")
        for name in ("batch_clips", "prefetch_batches", "local_ranks"):
            if getattr(self, name) < 1:
                raise BadInput(f"is {getattr(self, name)}, wanted at least 1", of="loader", field=name)
        if not 1 <= self.io_threads <= MAX_IO_THREADS:
            raise BadInput(f"is {self.io_threads}, wanted 1 to {MAX_IO_THREADS}", of="loader", field="io_threads")
        try:
            check_run(self.run)
        except BadRequest as error:
            raise BadInput(f"loader: {error}") from None
        self.dispatch_limits(RankBudgets(prefetch_bytes=1, inflight_bytes=1))
        self.fleet_limits()

    def _check_local(self) -> None:
        is_local = LOCAL in self.servers
        if is_local and self.root is None:
            raise BadInput("loader: servers is 'local' and root is None, wanted the folder of videos to serve")
        for name in ("root", "local_cpus", "local_log"):
            if getattr(self, name) is not None and not is_local:
                raise BadInput(
                    f"loader: {name} is {shown(getattr(self, name))} and servers has no 'local' to use it; wanted "
                    f"'local' among servers, or no {name}"
                )
        if self.local_cpus is not None and self.local_cpus < 1:
            raise BadInput(f"is {self.local_cpus}, wanted at least 1", of="loader", field="local_cpus")

    def rank_of(self) -> RankOf:
        """Which rank of how many, said in one log line where it is the environment's word or against it.

        Raises BadInput where the two cannot be brought together.
        """
        found = rank_of(self.rank, self.world_size)
        if found.told:
            _log.info("%s", found.told)
        if found.contradicts:
            _log.warning("%s", found.contradicts)
        return found

    def dispatch_limits(self, budgets: RankBudgets) -> DispatchLimits:
        """What of it is the dispatch's. Raises BadInput for values out of their limits."""
        return DispatchLimits(
            timeouts=TimeoutLimits(attempt_s=self.attempt_s, attempt_min_s=self.attempt_min_s),
            hedge_share=self.hedge_share,
            head_clips=self.batch_clips * window_of(self.order, world_size=self.world_size or 1),
            witnesses=self.poison.servers,
            storage_s=self.stall_s / 2,
            stall_s=self.stall_s,
            stall_ends=self.on_stall == "fail",
            inflight_bytes=budgets.inflight_bytes,
            run=self.run,
            work_class=self.work_class,
        )

    def local_server(self, rank: int, clip_bytes: int) -> LocalServer | None:
        """The server of this machine for a rank, not started; None if none is wanted.

        Raises BadInput for a root that is not indexed, and for more CPUs than the rank has.
        """
        if LOCAL not in self.servers:
            return None
        assert self.root is not None
        check_indexed(self.root)
        at = rank % self.local_ranks
        plan = plan_local(this_machine(self.local_ranks), rank=at, cpus=self.local_cpus, clip_bytes=clip_bytes)
        return LocalServer(self.root, plan, name=f"local-{rank}", log=self.local_log)

    def fleet_limits(self) -> FleetLimits:
        """What of it is the fleet's. Raises BadInput for values out of their limits."""
        return FleetLimits(affinity_slack=self.affinity_slack, member_grace_s=self.member_grace_s)

    def rank_budgets(self, clip_bytes: int) -> RankBudgets:
        """What this rank may hold of such clips, said in one log line; reads how much memory there is.

        Raises BadInput when a budget does not hold what it must, or the memory not one batch.
        """
        node = NodeBudgets(
            prefetch_bytes=self.prefetch_bytes, inflight_bytes=self.inflight_bytes, local_ranks=self.local_ranks
        )
        memory_bytes = node_memory_bytes()
        check_batch(
            local_ranks=self.local_ranks,
            memory_bytes=memory_bytes,
            clip_bytes=clip_bytes,
            batch_clips=self.batch_clips,
        )
        budgets = rank_budgets(node, memory_bytes=memory_bytes, clip_bytes=clip_bytes, batch_clips=self.batch_clips)
        _log.info(
            "memory of this rank, one of %d of its node: %d MiB for batches made ahead (%s), %d MiB for clips in "
            "flight (%s); the node has %s",
            self.local_ranks,
            budgets.prefetch_bytes >> 20,
            "derived" if self.prefetch_bytes is None else "given",
            budgets.inflight_bytes >> 20,
            "derived" if self.inflight_bytes is None else "given",
            "memory unknown" if memory_bytes is None else f"{memory_bytes >> 20} MiB to give",
        )
        return budgets
