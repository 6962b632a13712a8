"""One server over ZeroMQ: a DEALER, its monitor, and what to do when the connection is refused or cut. No messages.

ZeroMQ connects again by itself after a connection that broke, but never after one that was refused or that it cut
itself (libzmq 4.3.5, session_base_t::engine_error: a protocol error ends the session). Those are made again here, ever
more rarely, with the keys that lie in the files by then, and the log says why, once a minute at most.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from typing import cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from framefeed.errors import BadInput, ResourceExhausted
from framefeed.wire import MAX_HEADER_BYTES
from framefeed.zmtp import largest_frame_bytes, protocol_error
from trainer_client.transports.credentials import Secrets
from trainer_client.transports.fork_guard import Address, peer_of
from trainer_client.transports.transport import (
    HEARTBEAT_LOST_MS,
    HEARTBEAT_MS,
    RETRY_MAX_S,
    RETRY_S,
    Kind,
    TransportLimits,
    cannot_connect,
)

_log = logging.getLogger(__name__)

_HANDSHAKE_MS = 5000
_OWN_CUT_S = 0.25  # a lost connection that ZeroMQ does not try again within this was cut by itself
_STEADY_S = 10.0  # a connection that stood so long is no sign of trouble
_SAY_AGAIN_S = 60.0
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_CLOSED = (errno.EPIPE, errno.ECONNRESET)  # within a handshake, by the other side
_FAILED = _REFUSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_TRIES = zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED
_POLLIN = int(zmq.POLLIN)  # the flag's own & makes an enum member anew at each look
_EVENTS = _FAILED | _TRIES | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


_UNREACHED = (
    "cannot be reached: its host's name does not resolve, or no network leads there",
    "refuses connections: nothing listens there",
)


class Link:
    """The sockets of one server; while it rests between two tries it has none."""

    def __init__(
        self, url: str, context: zmq.Context[zmq.Socket[bytes]], limits: TransportLimits, *, peers: set[Address]
    ) -> None:
        """Begins to connect, and adds to `peers` whom it was connected to. Raises as open() does."""
        self.url = url
        self._peers = peers
        self.dealer: zmq.Socket[bytes] | None = None
        self.fds: tuple[int, ...] = ()
        self._context, self._limits = context, limits
        self._monitor: zmq.Socket[bytes] | None = None
        self._keys = Secrets()
        self._retry_s = RETRY_S
        self._made_s: float | None = None  # since when the connection stands
        self._again_s: float | None = None  # when to connect anew, if ZeroMQ has not by then
        self._cut_handshakes = 0  # in a row, since it was connected or nothing listened there
        self._said: dict[str, float] = {}
        self.trouble = ""  # why there is no connection
        self._tried = self._reached = False  # since the last retry: an address, and who is there
        self.open()

    def open(self) -> None:
        """Connect with new sockets. No frame larger than a clip, or than a header may be, is accepted.

        Raises BadInput for an address that cannot be used, ResourceExhausted if there are no more sockets to be had.
        """
        self._again_s = None
        self._tried = self._reached = False
        self._keys = self._limits.secrets() if self.url.startswith("tcp://") else Secrets()
        try:
            self.dealer = self._context.socket(zmq.DEALER)
            self._set_options(self.dealer)
            self._monitor = self.dealer.get_monitor_socket(_EVENTS)
            self.fds = (_fd(self.dealer), _fd(self._monitor))
            _readable(self._monitor)  # ZeroMQ shows by a descriptor only what comes after a look that found nothing
            self.dealer.connect(self.url)
        except zmq.ZMQError as error:
            self.close()
            raise cannot_connect(self.url, error.errno, error.strerror) from None

    def open_again(self) -> None:
        """Connect anew, once it is due; if that cannot be, later."""
        if self._made_s is not None:  # it stood, and ZeroMQ cut it on this side
            largest_bytes = self._max_part_bytes
            why = f"it sent a frame of more than {largest_bytes} bytes, the largest clip or header that this run wants"
            self._say(logging.WARNING, f"the connection was cut on this side: {why}, or what is no ZMTP")
            self._made_s = None
        try:
            self.open()
        except (BadInput, ResourceExhausted) as error:
            self._rest(time.monotonic())
            self._say(logging.WARNING, f"is not connected again yet ({error})")

    def close(self) -> None:
        """Cut the connection, if there is one. Idempotent."""
        if self.dealer is not None:
            self.dealer.disable_monitor()
        for socket in (self._monitor, self.dealer):
            if socket is not None:
                socket.close(0)
        self.dealer = self._monitor = None
        self.fds = ()

    @property
    def monitor_fd(self) -> int:
        """The descriptor that shows changes; -1 while there are no sockets."""
        return self.fds[1] if self.fds else -1

    @property
    def readable(self) -> bool:
        """Whether a message lies ready."""
        return self.dealer is not None and _readable(self.dealer)

    @property
    def has_part(self) -> bool:
        """Whether there is more of the message that is being received."""
        return self.dealer is not None and bool(self.dealer.getsockopt(zmq.RCVMORE))

    @property
    def troubled(self) -> bool:
        """Whether it may have to be connected anew."""
        return self._again_s is not None

    @property
    def failed(self) -> bool:
        """Whether its sockets are of no use any more: it is refused, and to be closed until it is due."""
        return self._again_s is not None and self._made_s is None and self.dealer is not None

    def due(self, now_s: float) -> bool:
        """Whether it is time to connect anew; not before what was received is read."""
        return self._again_s is not None and now_s >= self._again_s and not self.readable

    def changes(self) -> list[Kind]:
        """What became of the connection since the last call."""
        kinds: list[Kind] = []
        while self._monitor is not None and _readable(self._monitor):
            happened = recv_monitor_message(self._monitor)
            event, now_s = happened["event"], time.monotonic()
            self._notice_trouble(event)
            if event == zmq.EVENT_CONNECTED:
                with contextlib.suppress(OSError):  # lost already
                    self._note(peer_of(happened["value"]))
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._made_s, self._again_s, self._cut_handshakes = now_s, None, 0
                kinds.append(Kind.CONNECTED)
            elif event == zmq.EVENT_DISCONNECTED and self._made_s is not None:
                self._rest(now_s, at_least_s=_OWN_CUT_S)
                kinds.append(Kind.LOST)
            elif event == zmq.EVENT_CONNECT_RETRIED and self._made_s is not None:
                self._made_s = self._again_s = None
            elif event & _FAILED:
                self._made_s = None
                self._cut_handshakes += 1
                self._rest(now_s)
                level, self.trouble = self._refusal(event, happened["value"])
                self._say(level, self.trouble)
        return kinds

    def _notice_trouble(self, event: int) -> None:
        """Of a try to connect: a name that leads nowhere is not tried at all, only again and again."""
        if event == zmq.EVENT_CONNECT_DELAYED:
            self._tried = True
            self.trouble = self.trouble or "does not answer"
        elif event == zmq.EVENT_CONNECTED:
            self._reached = True
            self.trouble = "takes connections and says nothing: is it a decode server?"
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.trouble = ""
        elif event == zmq.EVENT_CONNECT_RETRIED and self._made_s is None:
            if not self._reached:
                self.trouble = _UNREACHED[self._tried]
                self._cut_handshakes = 0
            self._tried = self._reached = False

    @property
    def _max_part_bytes(self) -> int:
        return max(self._limits.clip_bytes, MAX_HEADER_BYTES)

    def _set_options(self, dealer: zmq.Socket[bytes]) -> None:
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.IPV6, 1),
            (zmq.MAXMSGSIZE, largest_frame_bytes(self._max_part_bytes, curve=self._keys.curve_key is not None)),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_LOST_MS),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, int(RETRY_S * 1000)),
            (zmq.RECONNECT_IVL_MAX, int(RETRY_MAX_S * 1000)),
        ):
            dealer.setsockopt(option, value)
        ours, theirs = self._keys.curve_key, self._keys.curve_server
        if ours is not None and theirs is not None:
            dealer.setsockopt(zmq.CURVE_SECRETKEY, ours)
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(ours))
            dealer.setsockopt(zmq.CURVE_SERVERKEY, theirs)

    def _note(self, peer: Address) -> None:
        if not isinstance(peer, tuple) or self.url.endswith(f":{peer[1]}"):  # else the descriptor is another's by now
            self._peers.add(peer)

    def _rest(self, now_s: float, *, at_least_s: float = 0.0) -> None:
        if self._made_s is not None and now_s - self._made_s > _STEADY_S:
            self._retry_s = RETRY_S
        self._again_s = now_s + max(self._retry_s, at_least_s)
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _refusal(self, event: int, value: int) -> tuple[int, str]:
        """What a failed handshake means here, and how loud to say it. One that is cut is a refusal once it is again."""
        if not event & _REFUSED and value in _CLOSED and self._cut_handshakes == 1:
            return logging.DEBUG, "cut the connection within the handshake: it may be ending"
        ours, theirs = self._keys.curve_key, self._keys.curve_server
        if ours is None or theirs is None:
            if not (event & _REFUSED or value in _CLOSED):
                return logging.INFO, f"did not finish the handshake (errno {value})"
            wants = "it wants CURVE (--curve-key and --curve-server) or is no decode server"
            return logging.WARNING, f"refuses this client: {wants}"
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            shown = zmq.curve_public(ours).decode()
            return logging.WARNING, f"refuses this client: its key {shown} is not on the server's list (status {value})"
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            wanted = f"wanted CURVE with the key {theirs.decode()}"
            return logging.WARNING, f"is not the server that --curve-server names: {protocol_error(value)}; {wanted}"
        how = "ended the handshake" if value in _CLOSED else f"did not finish the handshake (errno {value})"
        return logging.WARNING, f"{how}: is its key the one of --curve-server, {theirs.decode()}?"

    def _say(self, level: int, what: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._said.get(what, -_SAY_AGAIN_S) + _SAY_AGAIN_S:
            self._said[what] = now_s
            _log.log(level, "%s %s", self.url, what)


def _fd(socket: zmq.Socket[bytes]) -> int:
    return cast(int, socket.getsockopt(zmq.FD))


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(cast(int, socket.getsockopt(zmq.EVENTS)) & _POLLIN)
