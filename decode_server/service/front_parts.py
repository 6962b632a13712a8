"""What a front works with, and how long it has patience; values only, which whoever gave them closes."""

from __future__ import annotations

from dataclasses import dataclass, field

from decode_server.service.admission import Admission
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.credits import Credits
from decode_server.service.index_watch import IndexWatch
from decode_server.service.lifecycle import Lifecycle
from decode_server.service.listeners.listener import Listeners
from decode_server.service.metrics import Metrics
from decode_server.service.metrics_place import MetricsPlace
from decode_server.service.refusals import Refusals
from decode_server.service.siblings import Siblings
from decode_server.service.workers.worker_pool import WorkerPool
from framefeed.cli.stop_signals import StopSignals
from framefeed.grace import MAX_DEADLINE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a front works with."""

    listeners: Listeners
    admission: Admission
    buffer_pool: BufferPool
    pool: WorkerPool
    metrics: Metrics
    stops: StopSignals
    lifecycle: Lifecycle
    refusals: Refusals
    index_watch: IndexWatch
    credits: Credits
    siblings: Siblings = field(default_factory=Siblings)
    metrics_place: MetricsPlace = field(default_factory=MetricsPlace)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLimits:
    """How long a drain may take, how long a client may hold clips without giving one back, and how long a request may
    be kept, whatever its client says.
    """

    drain_s: float
    lease_s: float
    deadline_s: float = MAX_DEADLINE_S
