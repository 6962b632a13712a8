"""Where a running feed stands, for its counts: what is in flight and held, the limits of both, and its servers.

It reads the parts of a feed and changes nothing; its caller keeps them from changing meanwhile.
"""

from __future__ import annotations

from trainer_client.feed.prefetch import Prefetch
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.fleet import Fleet
from trainer_client.measures.stats import FeedState
from trainer_client.measures.wait import Wait


def standing(fleet: Fleet, dispatch: Dispatch, prefetch: Prefetch, *, wait: Wait | None) -> FeedState:
    """The state of a feed whose consumer is in this wait; None if it is in none."""
    return FeedState(
        in_flight=dispatch.in_flight,
        held=prefetch.held,
        held_limit=prefetch.limit_clips,
        inflight_bytes=fleet.inflight_bytes,
        inflight_limit_bytes=dispatch.inflight_limit_bytes,
        window_clips=sum(fleet.servers[url].window_clips for url in fleet.up),
        deadline_s=dispatch.deadline_s,
        servers={url: server.state.value for url, server in fleet.servers.items()},
        metrics_pages={url: server.metrics_page for url, server in fleet.servers.items() if server.metrics_page},
        identity=dispatch.identity,
        wait=wait,
    )
