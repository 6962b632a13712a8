"""Server addresses as users write them; knows how they are checked, not what speaks there."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from framefeed.errors import BadInput

SCHEME = "tcp"
_STRANGE = frozenset("*?;, \t\n")  # in no name or address of a host


def check_servers(urls: Sequence[str]) -> tuple[str, ...]:
    """The addresses, each tcp://HOST:PORT and given once. Raises BadInput naming the first that is not."""
    if isinstance(urls, str):
        raise BadInput(f"servers is the string {urls!r}, wanted a list of addresses like ['tcp://10.0.0.5:5555']")
    if not urls:
        raise BadInput("servers is empty, wanted at least one address like tcp://10.0.0.5:5555")
    for at, url in enumerate(urls):
        why = _wrong_with(url)
        if why:
            raise BadInput(f"server address {url!r} {why}; wanted tcp://HOST:PORT")
        if url in urls[:at]:
            raise BadInput(f"server address {url!r} is given twice; wanted each server once")
    return tuple(urls)


def _wrong_with(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"is no address ({error})"
    try:
        port = parts.port
    except ValueError:
        port = None
    faults = (
        ("://" not in url, "names no transport"),
        (parts.scheme != SCHEME, f"has transport {parts.scheme!r}, and only {SCHEME!r} is known"),
        (not parts.hostname or _STRANGE & set(parts.hostname), "names no host"),
        (not port, "names no port from 1 to 65535"),
        (bool(parts.path or parts.query or parts.fragment or "@" in url), "says more than a host and a port"),
    )
    return next((fault for wrong, fault in faults if wrong), "")
