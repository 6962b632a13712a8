"""grpc:// and grpcs://: one bidirectional stream a server, read by a thread of its own. Knows no clips and no retries.

gRPC's synchronous streams cost a fifth less CPU a clip here than grpc.aio on uvloop, and leave the caller's process
without an event loop; a thread a server is what they want. The one file of the client that knows grpc.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable

import grpc
import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput, BadRequest
from framefeed.grpc_pixels import split_pixels
from framefeed.proto_wire import header_of_reply, proto_of_call
from framefeed.show_value import show_value
from framefeed.v1 import decode_pb2
from framefeed.wire import MAX_HEADER_BYTES
from trainer_client.fleet.addresses import is_loopback, name_and_address
from trainer_client.transports.credentials import Secrets
from trainer_client.transports.fork_guard import (
    FORKS_WAIT,
    Address,
    close_all,
    keep_for_ever,
    let_go_when_forked,
    peer_of,
)
from trainer_client.transports.transport import (
    HEARTBEAT_LOST_MS,
    HEARTBEAT_MS,
    RETRY_MAX_S,
    RETRY_S,
    Kind,
    Signal,
    TransportLimits,
)

_log = logging.getLogger(__name__)

# gRPC's own handlers start threads in a child, which abort it when it closes descriptors, as subprocess does. Read when
# the first channel is made; whoever wants them sets it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Its core writes lines of its own, with bytes that a server chose, terminal escapes among them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
_SERVICE = decode_pb2.DESCRIPTOR.services_by_name["DecodeService"].full_name
_CONNECT_S = 5.0
_JOIN_S = 5.0
_UNSENT_CALLS = 256
_AHEAD_BYTES = 16 << 20  # received and not yet fetched, of one server; beyond it, its stream is not read
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_HEADER_BYTES),
    ("grpc.http2.max_frame_size", 1 << 20),  # of 16 KiB otherwise: a third less CPU on the server, a tenth here
    ("grpc.keepalive_time_ms", HEARTBEAT_MS),
    ("grpc.keepalive_timeout_ms", HEARTBEAT_LOST_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", int(RETRY_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(RETRY_MAX_S * 1000)),
    ("grpc.min_reconnect_backoff_ms", int(_CONNECT_S * 1000)),  # what an attempt to connect may take
    ("grpc.use_local_subchannel_pool", 1),  # servers' connections are theirs alone, and end with them
)
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)

_TOLD = 300  # characters of gRPC's words
_NOTHING = memoryview(b"")


class GrpcTransport:
    """See Transport. Its threads hand over through deques and one eventfd."""

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._links: dict[str, _Link] = {}
        self._leaving: list[_Link] = []
        with FORKS_WAIT:
            self._rung = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            let_go_when_forked(self)

    def connect(self, url: str) -> None:
        """See Transport. Raises BadInput if a token would travel in the clear, or to whoever has any certificate."""
        secrets = self._limits.secrets()
        if secrets.token is not None and not is_loopback(url):
            if not url.startswith("grpcs://"):
                raise BadInput(f"server address {show_value(url)}: a token would travel in the clear, wanted grpcs://")
            if secrets.tls_ca is None:
                raise BadInput(
                    f"server address {show_value(url)}: a token goes to servers of one's own authority, wanted --tls-ca"
                )
        self._links[url] = _Link(url, self._limits, ring=self._ring)
        self._leaving = [link for link in self._leaving if link.alive]

    def disconnect(self, url: str) -> None:
        """See Transport."""
        link = self._links.pop(url)
        link.end()
        self._leaving.append(link)

    def fileno(self) -> int:
        """See Transport."""
        return self._rung

    def signals(self) -> list[Signal]:
        """See Transport."""
        try:
            os.eventfd_read(self._rung)
        except BlockingIOError:
            return []
        signals = [Signal(url, kind) for url, link in self._links.items() for kind in link.kinds()]
        if any(signal.kind is Kind.MESSAGES for signal in signals):
            self._ring()
        return signals

    def send(self, url: str, header: bytes) -> bool:
        """See Transport."""
        return self._links[url].send(header)

    def header(self, url: str) -> bytes | None:
        """See Transport."""
        return self._links[url].header()

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """See Transport: gRPC's message is copied into the array."""
        pixels = self._links[url].pixels
        if into is not None and len(pixels) == into.nbytes:
            into.reshape(-1)[:] = np.frombuffer(pixels, np.uint8)
        return len(pixels)

    def trouble(self, url: str) -> str:
        """See Transport."""
        return self._links[url].trouble

    def close(self) -> None:
        """See Transport; waits for its threads, at most 5 s."""
        for url in list(self._links):
            self.disconnect(url)
        for link in self._leaving:
            link.join(_JOIN_S)
        self._leaving.clear()
        self._hang_up()

    def forked(self) -> None:
        """See Inherited. gRPC's threads and locks are not there in a child, so what is gRPC's is not touched again."""
        self._hang_up()
        for link in (*self._links.values(), *self._leaving):
            link.forked()

    def _hang_up(self) -> None:
        if self._rung >= 0:
            os.close(self._rung)
            self._rung = -1

    def _ring(self) -> None:
        os.eventfd_write(self._rung, 1)


class _Link:
    """One server: a channel, a stream that is opened again when it ends, and the thread that reads it."""

    def __init__(self, url: str, limits: TransportLimits, *, ring: Callable[[], None]) -> None:
        self.url = url
        self.pixels = _NOTHING  # of the message whose header was read last
        self._ring = ring
        self._messages: deque[tuple[bytes, memoryview]] = deque()  # header, pixels
        self._changes: deque[Kind] = deque()  # of the connection
        self._room = threading.Condition()
        self._ahead_bytes = 0
        self._calls: queue.SimpleQueue[bytes | None] | None = None  # of the stream that stands
        self._stream: grpc.Call | None = None
        self._ended = threading.Event()
        self._said = ""
        self.trouble = ""  # why there is no connection
        self._peers: set[Address] = set()
        self._limits = limits
        self._secrets = limits.secrets()
        self._channel = _open_channel(url, limits, self._secrets)
        self._thread = threading.Thread(target=self._run, name=f"framefeed-grpc {url}", daemon=True)
        self._thread.start()

    # The feed's thread.

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def kinds(self) -> list[Kind]:
        """What became of the connection, and between: whether messages lie ready. Who was lost may have left some."""
        if not self._thread.is_alive():
            raise RuntimeError(f"{self.url}: the thread that reads it has died")
        changes: list[Kind] = []
        while self._changes:
            changes.append(self._changes.popleft())
        made = changes[:1] if changes[:1] == [Kind.CONNECTED] else []
        return [*made, *([Kind.MESSAGES] if self._messages else []), *changes[len(made) :]]

    def send(self, header: bytes) -> bool:
        calls = self._calls
        if calls is None or calls.qsize() >= _UNSENT_CALLS:
            return False
        try:
            calls.put(proto_of_call(header))
        except BadRequest:
            calls.put(header)  # as it is: the server says that it is none
        return True

    def header(self) -> bytes | None:
        if not self._messages:
            return None
        header, self.pixels = self._messages.popleft()
        with self._room:
            self._ahead_bytes -= len(header) + len(self.pixels)
            self._room.notify()
        return header

    def end(self) -> None:
        """Cut the connection; returns at once."""
        self._ended.set()
        with self._room:
            self._room.notify()
        if self._stream is not None:
            self._stream.cancel()
        if self._calls is not None:
            self._calls.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def forked(self) -> None:
        close_all(lambda fd: peer_of(fd) in self._peers)
        keep_for_ever(self)

    # The link's own thread.

    def _run(self) -> None:
        retry_s = RETRY_S
        try:
            while not self._ended.is_set():
                if self._serve_stream():
                    retry_s = RETRY_S
                self._ended.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
                self._show_anew()
        finally:
            self._channel.close()

    def _show_anew(self) -> None:
        """Take up keys, certificates and a token that have changed."""
        secrets = self._limits.secrets()
        if secrets is not self._secrets:
            channel, self._secrets = self._channel, secrets
            self._channel = _open_channel(self.url, self._limits, secrets)
            channel.close()

    def _serve_stream(self) -> bool:
        """Open a stream and read it until it ends; whether it was connected at all."""
        calls: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        connected = False
        decode = self._channel.stream_stream(f"/{_SERVICE}/Decode")
        stream = decode(iter(calls.get, None), metadata=_metadata(self._secrets))
        self._stream = stream
        if self._ended.is_set():  # since before end() could see it
            stream.cancel()
        try:
            stream.initial_metadata()  # a server sends it at once
            connected = stream.is_active()
            if connected:
                self._calls = calls
                self._peers |= _addresses(self.url)
                self.trouble = ""
                self._change(Kind.CONNECTED)
            for data in stream:
                self._take_in(data)
        except grpc.RpcError:
            self._explain(stream)
        finally:
            self._calls = None
            calls.put(None)
            if connected:
                self._change(Kind.LOST)
        return connected

    def _take_in(self, data: bytes) -> None:
        try:
            said, pixels = split_pixels(data)
            message = (header_of_reply(said), pixels)
        except BadRequest as error:
            _log.warning("%s: %s", self.url, error)
            message = (b"", _NOTHING)  # which its reader finds to be no header
        with self._room:
            self._ahead_bytes += sum(map(len, message))
        self._messages.append(message)
        if not self._ended.is_set():
            self._ring()
        with self._room:
            self._room.wait_for(lambda: self._ahead_bytes <= _AHEAD_BYTES or self._ended.is_set())

    def _change(self, kind: Kind) -> None:
        self._changes.append(kind)
        if not self._ended.is_set():
            self._ring()

    def _refusal(self, code: grpc.StatusCode, details: str) -> str:
        """Which side refuses the other and why, in gRPC's words; "" if neither does."""
        if "Hostname Verification" in details:
            name, address = name_and_address(self.url)
            return f"shows a certificate that is not for {name or address.rpartition(':')[0]}"
        if "CERTIFICATE_VERIFY_FAILED" in details:
            return "shows a certificate that no authority signed that is trusted here"
        refused = code in _REFUSED or "andshake" in details or "certificate" in details.lower()
        return "refuses this client" if refused else ""

    def _explain(self, stream: grpc.Call) -> None:
        """Say in the log why there is no connection, once as long as the reason stays; who is refused has to act."""
        code, details = stream.code(), stream.details() or ""
        reason = f"{code.name}: {details}"
        what = self._refusal(code, details)
        if reason != self._said and not self._ended.is_set():
            level = logging.WARNING if what else logging.INFO
            _log.log(level, "%s %s (%s)", self.url, what or "is not there", " ".join(reason.split()))
        self._said = reason
        if not self._ended.is_set():
            self.trouble = f"{what or 'is not there'} ({' '.join(reason.split())[:_TOLD]})"


def _addresses(url: str) -> set[Address]:
    """Where a server's connections may lead; none if its name is not known any more. Blocks as name servers do."""
    host, _, port = name_and_address(url)[1].rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {(str(address[0]), int(address[1])) for *_, address in found}


def _metadata(secrets: Secrets) -> tuple[tuple[str, str], ...]:
    return () if secrets.token is None else (("authorization", f"Bearer {secrets.token.decode()}"),)


def _open_channel(url: str, limits: TransportLimits, secrets: Secrets) -> grpc.Channel:
    """A certificate is checked against the host of the URL, or the name that stands before it."""
    name, address = name_and_address(url)
    options: list[tuple[str, int | str]] = [*_OPTIONS]
    options.append(("grpc.max_receive_message_length", limits.clip_bytes + MAX_HEADER_BYTES))
    if url.startswith("grpc://"):
        return grpc.insecure_channel(address, options=options)
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(secrets.tls_ca, secrets.tls_key, secrets.tls_cert)
    return grpc.secure_channel(address, credentials, options=options)
