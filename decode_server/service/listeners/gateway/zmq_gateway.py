"""The process that runs ZeroMQ for one tcp:// address: what comes in goes to the front, what that answers goes out.

Whatever a peer does to libzmq, it does to this process: the front starts another at the same port. It holds no file
and no secret but its CURVE key, and may open nothing. It ends when the front does.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import socket
import time

import zmq

from decode_server.service.listeners.gateway.front_socket import FrontSocket
from decode_server.service.listeners.gateway.gateway_messages import (
    Arrived,
    AskKey,
    ClientCall,
    Connections,
    Cut,
    Delivered,
    KeyVerdict,
    Left,
    Reply,
    Stop,
    Up,
    ZmqSetup,
)
from decode_server.service.listeners.gateway.gateway_start import begin_gateway, first_words
from decode_server.service.listeners.gateway.memory_guard import MemoryVerdict
from decode_server.service.listeners.gateway.memory_watch import MemoryWatch, data_bytes
from decode_server.service.listeners.gateway.zmq_deliveries import Deliveries
from decode_server.service.listeners.gateway.zmq_inbound import Inbound, InboundMessages
from decode_server.service.listeners.gateway.zmq_peers import Peers
from decode_server.service.listeners.gateway.zmq_router import Names, has_message, open_router, zmq_fd
from decode_server.service.listeners.gateway.zmq_zap import Zap
from decode_server.service.private_memory import keep_memory_private
from decode_server.service.workers.sandbox import Sandbox, enter_sandbox
from framefeed.cli.parent_death import end_with_parent

log = logging.getLogger("framefeed.gateway")

_CALLS = ("accept", "accept4")  # what a worker may not do, and ZeroMQ has to
_TURN_S = 0.02  # memory is looked at so often, for a message that has no end wakes nobody
_GROWN_BYTES, _GROWN_AT_ONCE_BYTES = 16 << 20, 1 << 20  # since the start, and between two looks
_LOOK_SHARE = 1 / 32  # of the time, at most, goes into looking at connections
_MOST_DISCARDED_PARTS = 2_000_000  # some seconds' work, for which every client waits; a new process is there sooner
_ASKED_A_TURN = 256


class Gateway:
    """One ROUTER and the socket to the front, served by one thread."""

    def __init__(self, channel: socket.socket, setup: ZmqSetup, *, watch: MemoryWatch, sandbox: Sandbox) -> None:
        self._front, self._watch, self._verdict = FrontSocket(channel), watch, MemoryVerdict()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=setup.io_threads)
        self._zap = Zap(self._context, most=setup.connections)
        self._router = open_router(self._context, curve_secret=setup.curve_secret)
        names = Names(self._context, self._router)
        wanted = "ZMTP without encryption"
        if setup.curve_secret:
            public = zmq.curve_public(setup.curve_secret.encode()).decode()
            wanted = f"CURVE with this server's public key {public}"
        self._peers = Peers(self._router, names, most=setup.connections, wanted=wanted)
        pool = memoryview(mmap.mmap(setup.buffer_pool, 0, prot=mmap.PROT_READ))
        self._deliveries = Deliveries(self._router, pool)
        self._inbound = InboundMessages(self._router)
        self._router.setsockopt(zmq.USE_FD, setup.listening)
        self._router.bind("tcp://127.0.0.1:0")  # the address of the socket that was inherited, in truth
        self._front.say(Up(sandbox))
        self._shown_connections = 0
        self._grown_bytes = 0
        self._next_look_s = 0.0
        self._linger_s: float | None = None
        self._fds = {zmq_fd(self._peers.monitor): "monitor", zmq_fd(self._zap.socket): "zap"}
        self._router_fd = zmq_fd(self._router)
        self._again = {"monitor", "zap"}  # of which there may be more than their descriptors show
        self._writes = False
        self._poll = select.poll()
        for fd in (self._router_fd, self._front.fileno(), *self._fds):
            self._poll.register(fd, select.POLLIN)

    def run(self) -> None:
        """Serve until the front says to stop, or ends."""
        while self._linger_s is None:
            ready = self._wait()
            if "monitor" in ready and not self._peers.hear():
                self._again.add("monitor")
            if "front" in ready:
                self._take_orders()
            if "router" in ready or self._peers.waits:
                self._receive(self._inbound.take() if "router" in ready else [])
            if "zap" in ready:
                self._ask_for_keys()
            self._report()
            self._look_at_memory(time.monotonic())
        self._stop(self._linger_s)

    def _wait(self) -> set[str]:
        """What there is to do. Clients are not heard while the front does not take what they said.

        A descriptor of ZeroMQ shows that something happened at its socket, once: what is there is asked of the socket.
        """
        if self._front.is_full is not self._writes:
            self._writes = self._front.is_full
            self._poll.modify(self._front.fileno(), select.POLLIN | (select.POLLOUT if self._writes else 0))
        deaf = self._front.is_full or self._peers.is_full
        ready, self._again = self._again, set()
        if not deaf and has_message(self._router):
            ready.add("router")
        wait_s = min(_TURN_S, self._deliveries.look_s) if self._deliveries.busy else _TURN_S
        woken = {fd for fd, _ in self._poll.poll(0 if ready else int(wait_s * 1000))}
        ready.update(self._fds[fd] for fd in woken if fd in self._fds)
        if self._front.fileno() in woken:
            ready.add("front")
        if self._router_fd in woken and has_message(self._router) and not deaf:
            ready.add("router")
        return ready

    def _take_orders(self) -> None:
        for order in self._front.receive():
            match order:
                case Reply():
                    self._deliveries.send(order)
                case KeyVerdict(number, allowed):
                    self._zap.answer(number, allowed=allowed)
                    self._again.add("zap")
                case Cut(client):
                    self._peers.cut_client(client)
                case Stop(linger_s):
                    self._linger_s = linger_s
                    return

    def _receive(self, messages: list[Inbound]) -> None:
        if self._inbound.discarded_parts > _MOST_DISCARDED_PARTS:
            log.error("ends itself: %d parts of floods were thrown away and more wait", _MOST_DISCARDED_PARTS)
            os._exit(1)
        for message in self._peers.known(messages):
            try:
                principal = self._peers.principal(message)
            except Exception:  # a mistake of ours that this message found: it costs its sender alone
                log.exception("a message of a client could not be taken in")
                self._peers.refused.refuse("internal", "a client", "its message found a mistake in this server")
                continue
            if principal is None:
                continue
            if principal:
                self._front.say(Arrived(message.client, principal))
            self._front.say(ClientCall(message.client, message.frames))

    def _ask_for_keys(self) -> None:
        for _ in range(_ASKED_A_TURN):
            asked = self._zap.ask()
            if asked is None:
                return
            self._front.say(AskKey(*asked))
        self._again.add("zap")

    def _report(self) -> None:
        """Tell the front what happened in this turn, and what it did not take before."""
        if done := self._deliveries.tend():
            self._front.say(Delivered(done))
        left, self._peers.left = self._peers.left, []
        self._front.say(*map(Left, left), *self._peers.refused.take())
        if len(self._peers.table) != self._shown_connections:
            self._shown_connections = len(self._peers.table)
            self._front.say(Connections(self._shown_connections))
        self._front.flush()

    def _look_at_memory(self, now_s: float) -> None:
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _TURN_S
        before_bytes, self._grown_bytes = self._grown_bytes, self._watch.grown_bytes()
        grown_bytes = self._grown_bytes
        large = grown_bytes > _GROWN_BYTES or grown_bytes > before_bytes + _GROWN_AT_ONCE_BYTES
        if large and self._inbound.drained:  # else what came lies here, and is no sign of anything
            self._peers.cut_endless()
            self._next_look_s = max(self._next_look_s, now_s + (time.monotonic() - now_s) / _LOOK_SHARE)
        if self._verdict.trims(grown_bytes, now_s):
            self._watch.give_back()

    def _stop(self, linger_s: float) -> None:
        """Send what there is, for at most that long."""
        until_s = time.monotonic() + linger_s
        while self._deliveries.busy and time.monotonic() < until_s:
            self._deliveries.tend()
            time.sleep(self._deliveries.look_s)
        self._router.disable_monitor()
        self._peers.monitor.close(0)
        self._zap.close()
        self._router.close(linger=int(max(until_s - time.monotonic(), 0.0) * 1000))
        self._context.term()


def main() -> int:
    """The process's entry: its one argument is the inherited descriptor of the socket to the front."""
    channel = begin_gateway()
    (setup,) = first_words(channel)
    assert isinstance(setup, ZmqSetup)
    end_with_parent(setup.parent)
    watch = MemoryWatch()
    limit_bytes = data_bytes() + setup.memory_bytes
    keep_memory_private(private=bool(setup.curve_secret))
    sandbox = enter_sandbox((), memory_bytes=limit_bytes, allowed_calls=_CALLS)
    log.debug("sandbox: %s", sandbox)
    Gateway(channel, setup, watch=watch, sandbox=sandbox).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
