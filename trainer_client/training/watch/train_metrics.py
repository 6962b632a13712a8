"""A training run's own metrics in Prometheus form, and the page that shows them; the feed's metrics are its own."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from framefeed.errors import BadInput
from framefeed.page_server import Page, PageServer
from trainer_client.training.gpu_idle import IDLE_CAUSES
from trainer_client.training.loop import StepRecord
from trainer_client.training.tasks.feature_spread import RANK, SPREAD
from trainer_client.training.watch.clip_checks import FINDINGS
from trainer_client.training.watch.status_page import StatusPage
from trainer_client.training.watch.status_targets import ScrapeTargets

_STEP_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class TrainMetrics:
    """Steps, their duration, and loss, rate and gradient norm of the last one, in a registry shared with the feed.

    `on_gpu`: and for how long the GPU was idle between steps, by cause; a CPU has no such time, and no such metric.
    """

    def __init__(self, registry: CollectorRegistry, *, rank: int = 0, on_gpu: bool = True) -> None:
        steps = Counter("framefeed_trainer_steps", "Optimizer steps of this process.", ["rank"], registry=registry)
        skips = Counter("framefeed_trainer_skipped_steps", "Steps that were not finite.", ["rank"], registry=registry)
        self._skips = skips.labels(str(rank))
        text = "Seconds from one optimizer step to the next, data wait included."
        name = "framefeed_trainer_step_duration_seconds"
        duration = Histogram(name, text, ["rank"], registry=registry, buckets=_STEP_BOUNDS_S)
        self._steps, self._duration = steps.labels(str(rank)), duration.labels(str(rank))
        self._gauges = {
            field: Gauge(f"framefeed_trainer_{field}", text, ["rank"], registry=registry).labels(str(rank))
            for field, text in (
                ("step", "Optimizer steps of the whole run."),
                ("loss", "Loss of the last step."),
                ("learning_rate", "Learning rate of the last step."),
                ("grad_norm", "Gradient norm of the last step, before clipping."),
            )
        }

        self._idle = _idle_seconds(registry, rank=rank) if on_gpu else {}
        self._clips = _HealthMetrics(registry, rank=str(rank))

    def record(self, record: StepRecord) -> None:
        """Count one step."""
        for cause, idle_s in (record.idle_s or {}).items():
            self._idle[cause].inc(max(idle_s, 0.0))
        self._steps.inc()
        self._skips.inc(record.skipped)
        self._duration.observe(record.step_s)
        for field, gauge in self._gauges.items():
            gauge.set(getattr(record, field))

    def count_clips(self, clips: int, found: Mapping[str, int]) -> None:
        """Count clips that were looked at, and how many have each of FINDINGS."""
        self._clips.checked.inc(clips)
        for name, count in found.items():
            self._clips.findings[name].inc(count)

    def set_features(self, means: Mapping[str, float], *, collapsed: bool) -> None:
        """Show feature_std and feature_rank, means of the last steps, and whether they have collapsed."""
        for name, value in ({**means, "features_collapsed": float(collapsed)}).items():
            self._clips.features[name].set(value)


class _HealthMetrics:
    """What is learned from and how it is told apart: the first rank of a run looks, the others' stay 0."""

    def __init__(self, registry: CollectorRegistry, *, rank: str) -> None:
        text = "Clips looked at for cuts, flicker and pictures that come again."
        self.checked = Counter("framefeed_trainer_checked_clips", text, ["rank"], registry=registry).labels(rank)
        text = "Clips of these with something odd in them; cuts of the videos themselves count too."
        found = Counter("framefeed_trainer_clip_findings", text, ["rank", "finding"], registry=registry)
        self.findings = {name: found.labels(rank, name) for name in FINDINGS}
        self.features = {
            name: Gauge(f"framefeed_trainer_{name}", text, ["rank"], registry=registry).labels(rank)
            for name, text in (
                (SPREAD, "Standard deviation of clips' features over clips, mean of 50 steps; 0: all are one."),
                (RANK, "In how many directions clips' features differ, mean of 50 steps."),
                ("features_collapsed", "1 while the run's features are held to have collapsed."),
            )
        }


def _idle_seconds(registry: CollectorRegistry, *, rank: int) -> dict[str, Counter]:
    """A counter of each cause, at 0 from the start."""
    text = "Seconds without work on the GPU from one step to the next, by CUDA events and by what was waited for."
    idle = Counter("framefeed_trainer_gpu_idle_seconds", text, ["rank", "cause"], registry=registry)
    return {cause: idle.labels(str(rank), cause) for cause in IDLE_CAUSES}


@contextmanager
def metrics_page(registry: CollectorRegistry, *, host: str, port: int, ranks_here: int = 0) -> Iterator[str]:
    """Serve the registry from a thread within the `with`; gives its address. Port 0 takes a free one.

    For the first of `ranks_here` on this machine, whose pages are at the ports from this one on, also the status page
    of all of them, at `/`, and what ScrapeTargets says. Raises BadInput if the address cannot be taken.
    """
    others: list[StatusPage | ScrapeTargets] = []
    try:
        server = PageServer(host, port, get=lambda path: _page(registry, path, others))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            said = f"{host} cannot be taken ({why}); wanted an address of this machine"
            raise BadInput(said, of="metrics", field="metrics_host") from None
        said = f"{port} of {host} cannot be taken ({why}); wanted a free port, or 0 for any"
        raise BadInput(said, of="metrics", field="metrics_port") from None
    try:
        with ExitStack() as stack:
            if ranks_here:
                urls = _pages_from(server.url, port=port, ranks=ranks_here)
                status = stack.enter_context(closing(StatusPage([_on_this_machine(url) for url in urls])))
                others += [status, ScrapeTargets(registry, urls)]
            yield f"{server.url}/metrics"
    finally:
        server.close()


def status_line(metrics_url: str) -> str:
    """Where the status page beside a page of metrics is, for whoever looks on from this machine."""
    url = _on_this_machine(metrics_url).removesuffix("metrics")
    return f"status page {url}, also for 'framefeed top {url.removeprefix('http://').rstrip('/')}'"


def _pages_from(url: str, *, port: int, ranks: int) -> list[str]:
    """The pages of this rank and of those after it; where ports are free ones, only its own is known."""
    base, _, first = url.rpartition(":")
    return [f"{base}:{int(first) + rank}/metrics" for rank in range(ranks if port else 1)]


def _on_this_machine(url: str) -> str:
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _page(registry: CollectorRegistry, path: str, others: Sequence[StatusPage | ScrapeTargets]) -> Page:
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
    page = next((page for other in others if (page := other.get(path))), None)
    if page is None and path == "/":
        return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
    return page or (404, "text/plain; charset=utf-8", b"this port has /metrics\n")
