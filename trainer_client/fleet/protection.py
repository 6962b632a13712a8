"""Which addresses a trainer's credentials protect, so that nobody who names servers leads it away from them.

Pure. A registry and a name server are not the user: once the user gave credentials, what those say may choose among
servers that the credentials tell from impostors, and nothing else. It knows no files and no keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.fleet.addresses import DNS, is_loopback, scheme_of
from trainer_client.fleet.membership import Discovered


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What the user gave: CURVE keys, anything for TLS, a token. Without any every address will do."""

    curve: bool = False
    tls: bool = False
    token: bool = False

    def why_not(self, url: str) -> str:
        """Why the credentials do not protect what travels to a checked address; "" if they do."""
        if not (self.curve or self.tls or self.token):
            return ""
        scheme = scheme_of(url)
        protected = {
            "shm": True,  # of this host and user, which the kernel sees to
            "tcp": self.curve,
            "grpcs": self.tls or (self.token and is_loopback(url)),
            "grpc": self.token and is_loopback(url),
        }
        return "" if protected.get(scheme) else f"{scheme}:// is not protected by the credentials that were given"

    def check(self, servers: Iterable[str]) -> None:
        """Raises BadInput for a name to be looked up, among what the user gave, that leads to unprotected addresses."""
        for url in servers:
            if url.startswith(DNS) and (why := self.why_not(url.removeprefix(DNS))):
                raise BadInput(f"server address {show_value(url)}: {why}; wanted one that is, or no credentials")

    def allowed(self, discovered: Discovered) -> Discovered:
        """What was found without the addresses that are not protected; an entry that has no other is `refused`."""
        if discovered.seen is None:
            return discovered
        kept, refused = [], []
        for candidate in discovered.seen:
            if urls := tuple(url for url in candidate.urls if not self.why_not(url)):
                kept.append(replace(candidate, urls=urls))
            else:
                refused.append((candidate.name, _first(self.why_not(url) for url in candidate.urls)))
        return replace(discovered, seen=tuple(kept), refused=tuple(refused))


def _first(reasons: Iterable[str]) -> str:
    return next(iter(reasons), "it has no address")
