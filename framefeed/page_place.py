"""Where a metrics page is, as HOST:PORT, and whether it can be reached from here; it asks nobody.

What names pages (a registry, a trainer's own page) may be anyone's, and a loopback address in it is of the machine on
which it was written.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from framefeed.server_entry import ServerEntry
from framefeed.show_value import show_value

SERVER = "framefeed"
"""What the head of each of our pages calls who gives it: another program at a port answers 200 as well."""
_NAME = re.compile(r"(?=.{1,253}$)(\w([\w-]*\w)?\.)*\w([\w-]*\w)?\.?", re.ASCII)


def page_place(url: str) -> str:
    """HOST:PORT of a page's URL. Raises ValueError, which shows no password, where that is no place of a page."""
    if "@" in url:
        raise ValueError("its metrics page has a name or a password in its address, wanted http://HOST:PORT/metrics")
    try:
        where = urlsplit(url)
        host, port = where.hostname or "", where.port
    except ValueError:
        host, port = "", None
    if not url.startswith("http://") or not port or not _is_host(host):
        raise ValueError(f"its metrics page is at {show_value(url)}, wanted http://HOST:PORT/metrics")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_here(netloc: str) -> bool:
    """Whether HOST:PORT leads to the machine itself on which it is asked."""
    host = urlsplit(f"//{netloc}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def page_of(entry: ServerEntry, *, here: str) -> str:
    """HOST:PORT of the page of a server in a registry, "" if it has none, to whoever's host_id() is `here`. Raises
    ValueError where that is none, or only the server's own machine reaches it.
    """
    place = page_place(entry.metrics_url) if entry.metrics_url else ""
    if place and is_here(place) and entry.host != here:
        raise ValueError(f"its metrics page {place} is only for its own machine; start it with --metrics-host ADDRESS")
    return place


def _is_host(host: str) -> bool:
    """A name, or an address of one machine: not the wildcard, nor of many."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _NAME.fullmatch(host) is not None
    return not (address.is_unspecified or address.is_multicast)
