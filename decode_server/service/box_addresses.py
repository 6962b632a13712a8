"""Where the fronts of one box listen: the first where its user said, each further one a port or a name above. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from decode_server.service.listeners.endpoint import Endpoint
from framefeed.errors import BadInput

_MAX_PORT = 65535
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with


def front_url(url: str, number: int) -> str:
    """A URL of front `number` by that of front 0; port 0 stays, for each takes a free one."""
    if not number:
        return url
    if url.startswith("shm://"):
        return f"{url}-{number}"
    base, _, port = url.rpartition(":")
    return f"{base}:{front_port(int(port), number)}"


def front_port(port: int, number: int) -> int:
    """A port of front `number` by that of front 0. Raises BadInput for one that is none."""
    if port and port + number > _MAX_PORT:
        raise BadInput(f"front {number} would listen at port {port + number}, wanted at most {_MAX_PORT}")
    return port + number if port else 0


def check_no_clash(endpoints: Sequence[Endpoint], metrics: tuple[str, int], fronts: int) -> None:
    """Raises BadInput if two fronts would listen at one address; `metrics` is host and port of front 0's."""
    taken: dict[tuple[str, str], tuple[str, str]] = {}
    bound = [(one.url, one.address, int(one.url.rpartition(":")[2])) for one in endpoints if one.scheme != "shm"]
    for url, address, port in [*bound, ("--metrics-port", *metrics)]:
        for number in range(fronts if port else 0):
            at = str(front_port(port, number))
            near = next((who for (host, p), who in taken.items() if p == at and _meet(host, address)), None)
            if near is not None and near[0] != url:
                raise BadInput(
                    f"port {at} would be that of {near[0]} for {near[1]} and of {url} for front {number}: "
                    f"leave {fronts} ports for each address of {fronts} fronts, or set --fronts 1"
                )
            taken[address, at] = url, f"front {number}"


def sibling_url(url: str) -> str:
    """A front's URL as its siblings tell it to clients, who keep the host at which they reached the box."""
    return re.sub(r"^((?:tcp|grpcs?)://).*(:\d+)$", r"\1*\2", url)


def _meet(one: str, other: str) -> bool:
    return one == other or one in _ANY or other in _ANY
