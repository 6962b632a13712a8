"""Server addresses as users write them; knows how they are checked, not what speaks there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from framefeed.errors import BadInput
from framefeed.option_types import shown
from framefeed.show_value import show_value

FORMS = {
    "tcp": "tcp://HOST:PORT",
    "shm": "shm://@NAME",
    "grpc": "grpc://HOST:PORT",
    "grpcs": "grpcs://HOST:PORT",
}
"""The schemes of addresses and how each is written."""
LOCAL = "local"
"""What stands for a server that the loader starts itself, on this machine."""
DNS, REGISTRY = "dns+", "registry://"
"""What stands before an address whose name is resolved again and again, and before a folder of entries."""
_STRANGE = frozenset("*?;, \t\n")  # in no name or address of a host


def check_servers(urls: Sequence[str]) -> tuple[str, ...]:
    """What a user may give: addresses, dns+ before one, registry:///FOLDER, "local", each well formed and given once.

    Raises BadInput naming the first that is not.
    """
    if urls == LOCAL:
        return (LOCAL,)
    if isinstance(urls, str):
        raise BadInput(
            f"servers is the string {show_value(urls)}, wanted a list of addresses like ['tcp://10.0.0.5:5555']"
        )
    if not isinstance(urls, Sequence) or not all(isinstance(url, str) for url in urls):
        raise BadInput(f"servers is {shown(urls)}, wanted a list of addresses like ['tcp://10.0.0.5:5555']")
    if not urls:
        raise BadInput("servers is empty, wanted at least one address like tcp://10.0.0.5:5555")
    for at, url in enumerate(urls):
        _check_given(url)
        if url in urls[:at]:
            raise BadInput(f"server address {show_value(url)} is given twice; wanted each server once")
    return tuple(urls)


def _check_given(url: str) -> None:
    if url == LOCAL:
        return
    if url.startswith(REGISTRY):
        if not url.startswith(f"{REGISTRY}/"):
            raise BadInput(f"server address {show_value(url)} names no folder; wanted {REGISTRY}/PATH, an absolute one")
        return
    check_server(url.removeprefix(DNS))
    if url.startswith(DNS) and "HOST" not in FORMS[scheme_of(url.removeprefix(DNS))]:
        raise BadInput(f"server address {show_value(url)} has no host to look up; wanted {DNS}tcp://HOST:PORT")


def check_server(url: str) -> None:
    """Raises BadInput if this is no address of a known transport."""
    scheme, wanted = scheme_of(url), ", ".join(FORMS.values())
    if "://" not in url:
        raise BadInput(f"server address {show_value(url)} names no transport; wanted one of {wanted}")
    if scheme not in FORMS:
        raise BadInput(
            f"server address {show_value(url)} has the unknown transport {show_value(scheme)}; wanted one of {wanted}"
        )
    if why := _wrong_with_host(url) if "HOST" in FORMS[scheme] else _wrong_with_name(url):
        raise BadInput(f"server address {show_value(url)} {why}; wanted {FORMS[scheme]}")


def scheme_of(url: str) -> str:
    """What stands before `://`."""
    return url.partition("://")[0]


def is_loopback(url: str) -> bool:
    """Whether a checked address leads to this host and never out of it."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wrong_with_name(url: str) -> str:
    return "" if re.fullmatch(r"\w+://@[\w.-]{1,90}|shm:///.{1,100}", url) else "names no local socket"


def _wrong_with_host(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"is no address ({error})"
    try:
        port = parts.port
    except ValueError:
        port = None
    faults = (
        (not parts.hostname or _STRANGE & set(parts.hostname), "names no host"),
        (not port, "names no port from 1 to 65535"),
        (bool(parts.path or parts.query or parts.fragment or "@" in url), "says more than a host and a port"),
    )
    return next((fault for wrong, fault in faults if wrong), "")


def named(url: str, name: str) -> str:
    """The URL of an address that a name led to: grpcs://NAME@ADDRESS:PORT, where a certificate is for the name.

    Only discovery writes it; other transports check no names, and their URLs stay as they are.
    """
    scheme, _, address = url.partition("://")
    return f"{scheme}://{name}@{address}" if scheme == "grpcs" else url


def name_and_address(url: str) -> tuple[str, str]:
    """The name in a URL, "" if it has none, and HOST:PORT."""
    name, _, address = url.partition("://")[2].rpartition("@")
    return name, address


def host_of(url: str) -> str:
    """What of a URL is the same for all fronts of a box: all but the port; of shm, whose fronts are all of this host,
    the scheme.
    """
    return url.rpartition(":")[0] if "HOST" in FORMS[scheme_of(url)] else "shm:"


def metrics_page_of(reached: str, port: int) -> str:
    """HOST:PORT of the metrics of a server that was reached so, whose own they are at this port of that host."""
    has_host = "HOST" in FORMS[scheme_of(reached)]
    return f"{name_and_address(reached)[1].rpartition(':')[0] if has_host else '127.0.0.1'}:{port}"


def sibling_of(reached: str, bound: str) -> str | None:
    """The URL of another front of the box that was `reached` so, which binds it as `bound`; None where that is of
    another transport, is no address, or is the same front.

    Of tcp and gRPC the port alone is taken over, of shm the name: a box cannot lead a client to another host.
    """
    scheme, theirs = scheme_of(reached), scheme_of(bound)
    if theirs != scheme and not {scheme, theirs} <= {"grpc", "grpcs"}:
        return None
    if "HOST" in FORMS[scheme]:
        port = bound.rpartition(":")[2]
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
            return None
        url = f"{host_of(reached)}:{int(port)}"
    else:
        name = bound.rpartition("/")[2]
        url = f"{reached.rpartition('/')[0]}/{name}"
        abstract = (reached.startswith("shm://@"), bound.startswith("shm://@"))
        if abstract[0] is not abstract[1] or name in ("", ".", "..") or _wrong_with_name(url):
            return None
    return url if url != reached else None
