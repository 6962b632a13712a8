"""The situation of a feed in one line for people: where each server stands, and who waits where since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainer_client.fleet.attempts import Stage, Wanted
from trainer_client.fleet.server import Server

_NAMED = 3  # waiting clips that are named


def situation(servers: Iterable[Server], wanted: Mapping[int, Wanted], *, still_s: float, now_s: float) -> str:
    """How long no clip came that is wanted, each server (of one that is not used, why), and the first that wait."""
    lines = []
    for ticket in sorted(wanted)[:_NAMED]:
        clip = wanted[ticket]
        asked = [attempt for attempt in clip.open if attempt.stage is not Stage.CANCELLED]
        where = f"at {asked[-1].url}" if asked else f"at no server ({clip.trouble})"
        lines.append(f"{clip} {where} since {now_s - (asked[-1].sent_s if asked else clip.wanted_s):.1f} s")
    stand = "; ".join(f"{server}, since {now_s - server.since_s:.1f} s" for server in servers) or "none yet"
    if not wanted:
        return f"no clip is asked for; servers: {stand}"
    return f"no clip for {still_s:.1f} s; servers: {stand}; {len(wanted)} clips wait, first: {'; '.join(lines)}"
