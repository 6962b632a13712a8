"""Looks a host's name up within a time limit. It knows names and addresses, and not what is asked there.

The C library's own look-up has no limit: beside a resolver that says nothing it stands for half a minute.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

from framefeed.show_value import show_value

Place = tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]
"""What a socket is made for, and connected to."""
LookUp = Callable[[str, int], list[Place]]
"""Where a TCP port of a host is; blocks, raises OSError."""

_pending: dict[tuple[str, int], Future[list[Place]]] = {}  # one thread a name, however often it is asked for
_lock = threading.Lock()


def ask_system(host: str, port: int) -> list[Place]:
    """The C library's answer, however long it takes. Raises OSError for what leads nowhere or is no name."""
    try:
        listed = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{show_value(host)} is no name ({error})") from None
    except OverflowError:
        raise OSError(f"{port} is no port") from None
    return [(family, address) for family, _, _, _, address in listed]


def hosts_in(places: Iterable[Place]) -> list[str]:
    """The addresses of places, each once, IPv6 ones in brackets."""
    shown = dict.fromkeys(str(address[0]) for _, address in places)
    return [f"[{address}]" if ":" in address else address for address in shown]


def places_of(host: str, port: int, *, limit_s: float, look_up: LookUp = ask_system) -> list[Place]:
    """Where a TCP port of a host is. Blocks for `limit_s` at most; the look-up itself goes on in a thread that holds
    up no exit. Raises OSError for what leads nowhere, TimeoutError (an OSError) where nothing is known in time.
    """
    with _lock:
        found = _pending.get((host, port))
        if found is None:
            found = _pending[host, port] = Future()
            threading.Thread(target=_keep, args=(host, port, look_up, found), name="name-lookup", daemon=True).start()
    try:
        return found.result(timeout=limit_s)
    except NotYet:
        raise TimeoutError(f"the name {show_value(host)} is not looked up within {limit_s:g} s") from None


def connect_to(host: str, port: int, *, limit_s: float) -> socket.socket:
    """A connection, each step of which waits for `limit_s` at most. Blocks for that long for the name and for each of
    its addresses. Raises OSError where none can be had.
    """
    why: OSError = OSError(f"the name {show_value(host)} leads nowhere")
    for family, address in places_of(host, port, limit_s=limit_s):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(limit_s)
            connection.connect(address)
        except OSError as error:
            connection.close()
            why = error
        else:
            return connection
    raise why


def _keep(host: str, port: int, look_up: LookUp, found: Future[list[Place]]) -> None:
    try:
        places = look_up(host, port)
    except OSError as error:
        failure: OSError | None = error
    else:
        failure = None
    with _lock:
        del _pending[host, port]
    if failure is not None:
        found.set_exception(failure)
    else:
        found.set_result(places)
