"""The port of a gateway, which the front holds: bound once, so that none else has it while a process is replaced."""

from __future__ import annotations

import errno
import socket

from decode_server.service.listeners.endpoint import Endpoint
from framefeed.errors import BadInput


def bind_port(endpoint: Endpoint) -> socket.socket:
    """A bound socket that does not block and does not listen. Raises BadInput if the address cannot be had."""
    host, _, port = endpoint.url.partition("://")[2].rpartition(":")
    family = socket.AF_INET6 if endpoint.ipv6 else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.ipv6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host.strip("[]"), int(port)))
    except OSError as error:
        bound.close()
        raise BadInput(explain_bind(endpoint.url, error)) from None
    return bound


def url_of(endpoint: Endpoint, bound: socket.socket) -> str:
    """The endpoint's URL with the port that the socket has, which was 0 if any would do."""
    return f"{endpoint.url.rpartition(':')[0]}:{bound.getsockname()[1]}"


def explain_bind(url: str, error: OSError) -> str:
    """Why an address cannot be had, in a line."""
    if error.errno == errno.EADDRINUSE:
        return f"bind: {url} is in use; choose another with --bind"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"bind: {url} is no address of this machine"
    return f"bind: {url}: {error.strerror}"
