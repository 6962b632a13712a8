"""Where a server listens: reads and judges the --bind string. Pure; it opens nothing.

Without authentication a server stays on loopback unless its user says otherwise.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from framefeed.errors import BadInput
from framefeed.show_value import show_value

_MAX_PORT = 65535
_WANTED = "wanted tcp://ADDRESS:PORT or grpc(s)://ADDRESS:PORT (port 0 picks a free one), shm://@NAME or shm:///PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a listener binds, and the IP address in it: a loopback one unless `public`."""

    url: str
    address: str
    public: bool

    @property
    def scheme(self) -> str:
        """What stands before `://`: the transport."""
        return self.url.partition("://")[0]

    @property
    def ipv6(self) -> bool:
        """Whether the address is an IPv6 one."""
        return ":" in self.address


def parse_bind(bind: str, *, public_allowed: bool) -> Endpoint:
    """The endpoint that `bind` names. Raises BadInput if it is none, or if it is public and that is not allowed."""
    if re.fullmatch(r"shm://@[\w.-]{1,90}|shm:///[^\0]{1,100}", bind):
        return Endpoint(url=bind, address="127.0.0.1", public=False)
    match = re.fullmatch(r"(tcp|grpcs?)://(\[[^\]]+\]|[^:/\[\]]+):([0-9]{1,20})", bind)
    if not match:
        raise BadInput(f"--bind: {show_value(bind)} is no endpoint; {_WANTED}")
    if int(match[3]) > _MAX_PORT:
        raise BadInput(f"--bind: {show_value(bind)} has port {match[3]}, wanted 0 to {_MAX_PORT} (0 picks a free one)")
    host = {"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(match[2], match[2].strip("[]"))  # noqa: S104 - judged below
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadInput(f"--bind: {show_value(match[2])} is no IP address, 'localhost' or '*'; {_WANTED}") from None
    public = not address.is_loopback
    if public and not public_allowed:
        raise BadInput(f"--bind: {bind} lets anyone who can reach this machine in; add --public if that is meant")
    shown = f"[{address}]" if address.version == 6 else str(address)
    return Endpoint(url=f"{match[1]}://{shown}:{int(match[3])}", address=str(address), public=public)
