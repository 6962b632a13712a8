"""Nothing waits for ever: each wait without a deadline is listed here with what ends it, read by ast from all files."""

from __future__ import annotations

import ast
from pathlib import Path

GATEWAY = "decode_server/service/listeners/gateway"
ROOT = Path(__file__).parents[2]
PACKAGES = ("framefeed", "decode_server", "trainer_client")
WAITS = {
    "wait",
    "wait_for",
    "join",
    "result",
    "acquire",
    "communicate",
    "accept",
    "recv",
    "recv_multipart",
    "poll",
    "select",
}
ENDED_BY = {
    "framefeed/page_server.py: self._over.wait()": "close(); its loop serves meanwhile",
    "framefeed/cli/children.py: self._process.wait()": "it was killed, or its end was seen",
    "decode_server/chunking/chunk_workers.py: future.result()": "only of futures that are done",
    "decode_server/sources/isolated.py: future.result()": "only of futures that are done",
    "decode_server/service/workers/worker.py: channel.recv(MAX_MESSAGE_BYTES)": "the front's end: the socket closes",
    "decode_server/service/workers/worker.py: self._channel.recv(MAX_MESSAGE_BYTES)": "the front's end, as above",
    "decode_server/service/workers/hand_over.py: self._more.wait()": "a task; the front's end ends the process",
    "decode_server/service/workers/hand_over.py: self._room.wait()": "a decode thread is done; the same",
    "decode_server/service/workers/supervisor.py: worker.process.poll()": "does not block",
    "decode_server/service/workers/supervisor.py: worker.channel.recv(MAX_MESSAGE_BYTES)": "it does not block",
    "decode_server/service/box_front.py: self._channel.recv(MAX_MESSAGE_BYTES)": "it does not block",
    "decode_server/service/box_front.py: self._process.wait()": "its end was seen",
    "decode_server/service/front_process.py: self._channel.recv(MAX_MESSAGE_BYTES)": "its socket's time-out",
    "framefeed/cli/stop_signals.py: self._ends[0].recv(64)": "it does not block",
    f"{GATEWAY}/gateway_start.py: channel.recv(MAX_DATAGRAM_BYTES)": "the front has written it, or its end",
    f"{GATEWAY}/gateway_process.py: process.poll()": "does not block",
    f"{GATEWAY}/front_channel.py: self._room.wait()": "the front takes what was said, or ends, and the process with it",
    f"{GATEWAY}/grpc_gateway.py: self._state_changed.wait()": "a change, or the end of its loop",
    f"{GATEWAY}/grpc_secrets.py: self._changed.wait()": "a change, or the end of its call cancels it",
    f"{GATEWAY}/grpc_auth.py: call.result()": "only of a call that is done",
    f"{GATEWAY}/grpc_gateway.py: task.result()": "only of tasks that are done",
    f"{GATEWAY}/grpc_gateway.py: stream.credits.acquire()": "its client reads, or ends",
    f"{GATEWAY}/grpc_streams.py: self._more.wait()": "a message to send, or the stream's end",
    f"{GATEWAY}/grpc_streams.py: self._cut.wait()": "cut(), or the end of its call cancels it",
    "decode_server/service/listeners/shm_listener.py: self._socket.accept()": "it does not block",
    "decode_server/service/listeners/shm_listener.py: client.socket.recv(MAX_DATAGRAM_BYTES + 1)": "it does not block",
    "trainer_client/fleet/node_share.py: listener.accept()": "it does not block",
    "trainer_client/transports/connection.py: self._wake.recv(4096)": "it does not block",
    "trainer_client/transports/grpc_transport.py: self._room.wait_for(lambda: self._ahead_bytes <= _AHEAD_BYTES or "
    "self._ended.is_set())": "the feed takes replies, or the connection ends",
    "trainer_client/transports/shm_transport.py: server.recv(MAX_DATAGRAM_BYTES + 1)": "it does not block",
}


def test_every_wait_has_a_deadline_or_is_listed_with_what_ends_it() -> None:
    found = {call for package in PACKAGES for path in (ROOT / package).rglob("*.py") for call in _endless(path)}
    assert sorted(found - ENDED_BY.keys()) == [], "a wait without a deadline"
    assert sorted(ENDED_BY.keys() - found) == [], "no longer there"


def _endless(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [f"{name}: {ast.unparse(call)}" for call in calls if _waits(call) and not _bounded(call)]


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return "" if "select" in ast.unparse(call.func) else call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _waits(call: ast.Call) -> bool:
    return _name(call) in WAITS


def _bounded(call: ast.Call) -> bool:
    """Whether it says for how long, or not to block: some have another argument first, the others only a timeout."""
    plain = "NOBLOCK" not in ast.unparse(call) and "MSG_" not in ast.unparse(call)
    others = 1 if plain and (_name(call) in ("recv", "wait_for") or isinstance(call.func, ast.Name)) else 0
    return len(call.args) > others or any("timeout" in (keyword.arg or "") for keyword in call.keywords)


def test_what_counts_as_endless() -> None:
    def endless(text: str) -> bool:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        return _waits(call) and not _bounded(call)

    for text in (
        "a.wait()",
        "c.wait_for(f)",
        "wait(these)",
        "t.join()",
        "f.result()",
        "s.recv(64)",
        "s.recv()",
        "p.communicate()",
        "s.accept()",
    ):
        assert endless(text)
    for text in (
        "a.wait(1)",
        "c.wait_for(f, 1)",
        "wait(these, timeout=1)",
        "t.join(timeout=1)",
        "f.result(1)",
        "s.recv(zmq.NOBLOCK)",
        "', '.join(x)",
        "d.get(1)",
    ):
        assert not endless(text)
