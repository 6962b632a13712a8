"""CURVE for tcp://: who may connect and ask, who was not let in, and the verb `keys` that makes key pairs.

The handler is a thread of its own: it answers ZeroMQ's questions about clients' keys (ZAP, rfc.zeromq.org/spec/27) and
hears of handshakes that failed and of connections that do not last, with CURVE or without. It knows no messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import zmq
from zmq.auth import Authenticator
from zmq.utils.monitor import recv_monitor_message

from decode_server.service.listeners.churn import CUTS, WITHIN_S, Churn
from decode_server.service.listeners.security import Curve
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput
from framefeed.key_files import write_public, write_secret
from framefeed.wire import MAX_HEADER_BYTES
from framefeed.zmtp import protocol_error

log = logging.getLogger("framefeed.serve")

_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_LASTING = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_JOIN_S = 5.0


class ZapHandler:
    """Watches a socket that is not bound yet. Ends by itself when the socket's context is terminated."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], router: zmq.Socket[bytes], refusals: Refusals) -> None:
        self._context = context
        self._refusals = refusals
        self._monitor = router.get_monitor_socket(_FAILURES | _LASTING)
        self._churn = Churn()
        self._keeper: Authenticator | None = None
        self._allowed: Callable[[], frozenset[bytes]] = frozenset
        self._public = b""
        self._thread = threading.Thread(target=self._run, name="zmq-zap", daemon=True)

    def lock(self, router: zmq.Socket[bytes], curve: Curve) -> None:
        """Let only clients in that have one of the keys. Before the handler is opened."""
        self._allowed, self._public = curve.allowed, zmq.curve_public(curve.secret)
        self._keeper = Authenticator(self._context)
        self._keeper.configure_curve_callback("*", self)
        self._keeper.start()
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)

    def open(self) -> None:
        """Begin to answer, before the socket is bound."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until the thread has ended, once the context is terminated."""
        self._thread.join(_JOIN_S)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this public key may connect: what pyzmq's Authenticator asks."""
        del domain
        if key in self._allowed():
            return True
        self._refusals.refuse("key", f"client key {key.decode()}", "it is not on the list of --curve-allow")
        return False

    def may_ask(self, part: zmq.Frame) -> bool:
        """Whether the key that a message came under is still on the list; if not, its connection is cut.

        ZeroMQ asks for keys at handshakes only. The socket's thread calls this.
        """
        key = str(part.get("User-Id")).encode()  # which pyzmq's Authenticator sets to the client's key
        if key in self._allowed():
            return True
        self._refusals.refuse("key", f"client key {key.decode()}", "it is no longer on the list of --curve-allow")
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(part.get(zmq.SRCFD)))) as connection:
            if connection.getpeername()[0] == part.get("Peer-Address"):  # else it ended, and this is another one
                connection.shutdown(socket.SHUT_RDWR)
        return False

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._monitor, zmq.POLLIN)
        if self._keeper is not None:
            poller.register(self._keeper.zap_socket, zmq.POLLIN)
        with contextlib.suppress(zmq.ContextTerminated):
            while True:
                ready = dict(poller.poll())
                if self._monitor in ready:
                    happened = recv_monitor_message(self._monitor)
                    self._hear(happened["event"], happened["value"], happened["endpoint"].decode())
                if self._keeper is not None and self._keeper.zap_socket in ready:
                    asyncio.run(self._keeper.handle_zap_message(self._keeper.zap_socket.recv_multipart()))
        self._monitor.close(0)
        if self._keeper is not None:
            self._keeper.stop()

    def _hear(self, event: int, value: int, endpoint: str) -> None:
        now_s = time.monotonic()
        if event & _FAILURES:
            protocol = event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            why = protocol_error(value) if protocol else "it ended the handshake, as who speaks or trusts another does"
            shown = f"CURVE with this server's public key {self._public.decode()}"
            wanted = shown if self._keeper is not None else "ZMTP without encryption"
            self._refusals.refuse(
                "handshake", f"a client of {endpoint}", f"its handshake failed, wanted {wanted}: {why}"
            )
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._churn.made(now_s)
        elif event == zmq.EVENT_DISCONNECTED and self._churn.cut(now_s):
            log.warning(
                "%s: %d connections were made and %d cut within %g s: clients that come and go, that send more than "
                "%d bytes at once, or that accept no clips as large as they ask for",
                *(endpoint, CUTS, CUTS, WITHIN_S, 2 * MAX_HEADER_BYTES),
            )


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Make a CURVE key pair for a server or a trainer: FOLDER/NAME.secret and FOLDER/NAME.public.

    The secret one stays where it is made. A server takes its own with --curve-key and the public keys of its trainers,
    one a line in a file, with --curve-allow; a trainer takes its own with --curve-key and the servers' public one with
    --curve-server.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Where the two files go; it is there already."""
    name: Annotated[str, tyro.conf.Positional]
    """Whose they are, e.g. server or trainer-0."""

    def run(self) -> None:
        """Write both files and say where. Raises BadInput if one is there already."""
        if not self.name or "/" in self.name:
            raise BadInput(f"keys: name is {self.name!r}, wanted a file's name")
        public, secret = zmq.curve_keypair()
        paths = [self.folder / f"{self.name}.{kind}" for kind in ("secret", "public")]
        write_secret(paths[0], secret + b"\n")
        write_public(paths[1], public + b"\n")
        print(f"wrote {paths[0]} and {paths[1]}")
