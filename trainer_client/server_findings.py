"""What was measured of servers that run, as values, and what it means for a run over all of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from framefeed.cli.doctor.finding import Finding, bad, good, warn
from framefeed.wire import ServerReply

CLIP_BYTES = 4 * 224 * 224 * 3
_SLOW_CLIP_S = 2.0
_CLOCK_S = 2.0
_TAKES_REQUESTS = ("ready", "starting")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One server. `who` is what it says of itself, None if it did not: `trouble` says why. Of the clip that it was
    asked for, `clip_s` is how long that took, `clip_sha256` what came, `clip_trouble` why nothing did; all "" or None
    where none was asked for. `network_bytes_s` is how fast a large clip came, its server's own time taken off, and
    `clock_s` by how much its clock is ahead of ours.
    """

    url: str
    who: ServerReply | None = None
    trouble: str = ""
    clip_s: float | None = None
    clip_sha256: str = ""
    clip_trouble: str = ""
    network_bytes_s: float | None = None
    clock_s: float | None = None


def check_servers(servers: Sequence[ServerFacts], *, dataset: str, clips_s: float) -> list[Finding]:
    """All findings: server by server, then of all together. `dataset` is the identity of the root, "" for none given,
    `clips_s` the clips a second that training takes, 0 for not known.
    """
    found = [finding for server in servers for finding in _check_one(server, dataset)]
    there = [server for server in servers if server.who is not None]
    if not there:
        return [*found, bad("servers", "none answers", "at least one that does: framefeed serve ROOT --bind ADDRESS")]
    return [*found, *_check_alike(there), *_check_network(there, clips_s)]


def _check_one(server: ServerFacts, dataset: str) -> Iterator[Finding]:
    what, who = f"server {server.url}", server.who
    if who is None:
        change = "its process, --bind with --public, firewalls and credentials; its log says whom it refuses"
        yield bad(what, server.trouble, change)
        return
    if who.state not in _TAKES_REQUESTS:
        yield warn(what, f"is {who.state}", "start another before it is gone")
    else:
        yield good(what, f"{who.state}, {who.workers} workers, {who.videos} videos, framefeed {who.software or '?'}")
    if dataset and who.dataset and who.dataset != dataset:
        yield bad(what, f"serves data set {who.dataset}, the root here is {dataset}", "the same root, indexed once")
    if server.clip_trouble:
        yield bad(what, f"gives no clip: {server.clip_trouble}", "what the line says, then ask again")
    elif server.clip_s is not None and server.clip_s > _SLOW_CLIP_S:
        change = "look at its queue and its storage (framefeed top); a clip takes milliseconds where both are free"
        yield warn(what, f"took {server.clip_s:.1f} s for a clip", change)
    elif server.clip_s is not None:
        yield good(what, f"gave a clip within {1000 * server.clip_s:.0f} ms")
    if server.clock_s is not None and abs(server.clock_s) > _CLOCK_S:
        seen = f"its clock is {abs(server.clock_s):.0f} s {'ahead' if server.clock_s > 0 else 'behind'}"
        yield warn(what, seen, "chrony or another NTP on both: logs and dashboards are put together by time")


def _check_alike(servers: Sequence[ServerFacts]) -> Iterator[Finding]:
    """Servers of one run have one decoder and one data set, and so give the same bytes."""
    for name, what in (("fingerprint", "decoders"), ("dataset", "data sets")):
        kinds = Counter(getattr(server.who, name) for server in servers)
        if len(kinds) > 1:
            usual = kinds.most_common(1)[0][0]
            odd = ", ".join(server.url for server in servers if getattr(server.who, name) != usual)
            change = f"the same for all: a run shuns {odd}"
            yield bad(what, f"{len(kinds)} kinds: {', '.join(sorted(kinds))}", change)
        else:
            yield good(what, f"one: {next(iter(kinds)) or 'not told'}")
    clips = {server.clip_sha256 for server in servers if server.clip_sha256}
    if len(clips) > 1:
        yield bad("clips", "differ between servers", "this must not be: keep this output, and report it")


def _check_network(servers: Sequence[ServerFacts], clips_s: float) -> Iterator[Finding]:
    speeds = {server.url: server.network_bytes_s for server in servers if server.network_bytes_s is not None}
    if not speeds:
        return
    slowest, fastest = min(speeds, key=lambda url: speeds[url]), max(speeds.values())
    seen = f"{speeds[slowest] / 1e6:.0f} MB/s from {slowest}, {fastest / 1e6:.0f} at best"
    need_bytes_s = clips_s * CLIP_BYTES
    need = f"--clips-s {clips_s:g} want {need_bytes_s / 1e6:.0f} MB/s as RGB"
    change = f"{need}: a faster link, yuv420p (half of it), or smaller clips"
    if clips_s and fastest < need_bytes_s:
        yield bad("network", seen, change)
    elif clips_s and speeds[slowest] < need_bytes_s / len(servers):
        yield warn("network", seen, f"{slowest} cannot bring its part; {change}")
    else:
        yield good("network", seen)
