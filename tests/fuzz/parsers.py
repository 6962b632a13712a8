"""What reads messages and files of others, one input at a time and in this process: each is read, or refused in a line.

A parser raises what its docstring names and nothing else; the line that it raises is bounded and printable.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from decode_server.media.packet_index import unpack_index
from decode_server.service.incoming import name_of, read_call
from framefeed import shm
from framefeed.errors import BadInput, BadRequest, CorruptMedia, FramefeedError
from framefeed.grpc_pixels import split_pixels, with_pixels
from framefeed.manifest import MANIFEST_NAME, read_identity, read_manifest
from framefeed.proto_wire import header_of_call, header_of_reply, proto_of_call, proto_of_reply
from framefeed.quarantine import QUARANTINE_NAME, read_quarantine
from framefeed.server_entry import unpack_entry
from framefeed.v1 import decode_pb2 as pb
from framefeed.wire import (
    DecodeCall,
    DescribeCall,
    pack_call,
    pack_reply,
    peek_attempt,
    seal,
    unpack_call,
)
from tests.entries import entry
from tests.fuzz.inputs import JSON, MSGPACK, Strange, odd_bytes
from tests.fuzz.nested_protos import StrangeProtos
from tests.fuzz.replies import ReplyTaker, says_one_line
from tests.fuzz.worker_messages import WorkerMessages
from tests.integration.mangle import CANCEL, HEADERS, bent, odd_header
from tests.unit.client.test_hostile_state import DATASET, ORDER, RECORD, SAMPLER
from tests.unit.contract.test_hostile_files import FILES
from tests.unit.contract.test_wire import REPLIES
from tests.unit.decode.test_hostile_index import BODY
from tests.unit.trainer.test_checkpoint import WHOLE, folder_of
from trainer_client.feed.order import Order
from trainer_client.feed.stand_ins import read as read_stand_ins
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.ranks import Ranks

MEMORY = "/dev/shm"  # files that are written a million times
_FILE_LINE_CHARS = 700  # with the names of files
_CALL_HEADERS = [*HEADERS, CANCEL, pack_call(DescribeCall(attempt=1))]
_REPLY_HEADERS = [pack_reply(reply) for reply in REPLIES]


def _body(header: bytes) -> Any:
    return msgspec.msgpack.decode(header[:-4])


def _is_a_call_or_a_line(header: bytes) -> None:
    try:
        call = unpack_call(header)
    except FramefeedError as error:
        says_one_line(error)
        call = None
    if isinstance(call, DecodeCall):
        assert unpack_call(pack_call(call)) == call or call.deadline_s != call.deadline_s
        assert name_of(call.request)
    assert peek_attempt(header) >= 0
    read = read_call([header])
    assert isinstance(read, FramefeedError) == (call is None)


class Headers:
    """A server's tcp:// address: the headers that a gateway hands to the front."""

    def __init__(self) -> None:
        self._strange = Strange([_body(header) for header in _CALL_HEADERS], MSGPACK)

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        if number % 4 == 0:
            _is_a_call_or_a_line(odd_header(rng))
        else:
            _is_a_call_or_a_line(seal(self._strange.bytes_at(number // 4 * 3 + number % 4, rng)))


class Protos:
    """A server's grpc:// address: the messages of a stream."""

    def __init__(self) -> None:
        self._strange = StrangeProtos([pb.Call.FromString(proto_of_call(header)) for header in _CALL_HEADERS])

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        try:
            header = header_of_call(self._strange.bytes_at(number, rng))
        except BadRequest as error:
            says_one_line(error)
        else:
            _is_a_call_or_a_line(header)


class ShmDatagrams:
    """A server's shm:// address: the datagrams of a client."""

    def __init__(self) -> None:
        self._strange = Strange([_body(header) for header in _CALL_HEADERS], MSGPACK)
        backs = [shm.pack_back(range(n)) for n in (1, 8, shm.MAX_BACK)]
        self._good = [*map(shm.pack_call, _CALL_HEADERS), *backs]

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        if number % 4 == 0:
            datagram = odd_bytes(rng, self._good)
        else:
            datagram = shm.pack_call(seal(self._strange.bytes_at(number // 4 * 3 + number % 4, rng)))
        try:
            said = shm.unpack_from_client(datagram)
        except ValueError as error:
            says_one_line(error)
            return
        if isinstance(said, bytes):
            _is_a_call_or_a_line(said)
        else:
            assert 0 < len(said) <= shm.MAX_BACK


class Replies:
    """A trainer's side of tcp://: the headers that a server answers with, up to what becomes of them in a dispatch."""

    def __init__(self) -> None:
        self._strange = Strange([_body(header) for header in _REPLY_HEADERS], MSGPACK)
        self._taker = ReplyTaker()

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        data = odd_bytes(rng, _REPLY_HEADERS) if number % 8 == 0 else seal(self._strange.bytes_at(number, rng))
        self._taker.take(data, rng)


class ReplyProtos:
    """A trainer's side of grpc://."""

    def __init__(self) -> None:
        self._strange = StrangeProtos([pb.Reply.FromString(proto_of_reply(header)) for header in _REPLY_HEADERS])
        self._taker = ReplyTaker()

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        data = self._strange.bytes_at(number, rng)
        if rng.random() < 0.3:
            data = bent(rng, with_pixels(data, memoryview(bytes(rng.randrange(40)))))
        try:
            rest, pixels = split_pixels(data)
            header = header_of_reply(rest)
        except BadRequest as error:
            says_one_line(error)
            return
        assert len(rest) + len(pixels) <= len(data)
        self._taker.take(header, rng)


class ReplyDatagrams:
    """A trainer's side of shm://: a greeting, or a reply with its lease."""

    def __init__(self) -> None:
        lease = shm.Lease(3, 4096, 12)
        self._good = [shm.pack_reply(header, leased) for header in _REPLY_HEADERS for leased in (None, lease)]
        self._hello = [shm.pack_hello(shm.LeaseWord(8, 1))]
        self._taker = ReplyTaker()

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        try:
            if number % 8 == 0:
                shm.unpack_hello(odd_bytes(rng, self._hello))
                return
            header, _ = shm.unpack_reply(odd_bytes(rng, self._good))
        except ValueError as error:
            says_one_line(error)
        else:
            self._taker.take(header, rng)


class Entries:
    """Entries of a registry."""

    def __init__(self) -> None:
        self._strange = Strange([json.loads(entry().pack())], JSON)

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        try:
            found = unpack_entry(self._strange.bytes_at(number, rng).decode())
        except UnicodeDecodeError:
            return
        except ValueError as error:
            says_one_line(error)
        else:
            assert found == unpack_entry(found.pack())


class JsonLines:
    """A file of JSON lines, one of which is strange."""

    def __init__(self, name: str, read: Callable[[Path], object]) -> None:
        self._lines = FILES[name][0].splitlines()
        self._read = read
        self._each = [Strange([json.loads(line)], JSON) for line in self._lines]
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self._path = Path(self._folder.name) / name

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        turn, line = divmod(number, len(self._lines))
        lines = list(self._lines)
        lines[line] = self._each[line].bytes_at(turn, rng)
        self._path.write_bytes(b"\n".join(lines))
        try:
            self._read(self._path.parent)
        except BadInput as error:
            says_one_line(error, _FILE_LINE_CHARS)


class Indices:
    """Records of packet indices."""

    def __init__(self) -> None:
        self._strange = Strange([BODY], MSGPACK)

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        if number % 4 == 0:
            name = rng.choice(("offset", "size", "pts", "flags", "crc32"))
            data = msgspec.msgpack.encode({**BODY, name: rng.randbytes(len(BODY[name]))})
        else:
            data = self._strange.bytes_at(number // 4 * 3 + number % 4, rng)
        try:
            index = unpack_index(data, where="here:7")
        except CorruptMedia as error:
            says_one_line(error)
            return
        assert np.isfinite(index.times_s).all()
        assert min(index.display_px) > 0
        assert index.where(0)
        assert len(index.digest) == 16


class RunStates:
    """What a run left: its order, its stand-ins, its place, and now and then a whole checkpoint."""

    def __init__(self) -> None:
        self._state = Strange([SAMPLER.state_at(5), {**SAMPLER.state_at(5), "shuffle": True}], JSON)
        self._stand_ins = Strange([json.loads(RECORD)], JSON)
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self._checkpoints = Checkpoints(Path(self._folder.name), config={"a": 1}, keep=1)
        self._files = {path: path.read_bytes() for path in folder_of(Path(self._folder.name), WHOLE).iterdir()}

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what a parser must not."""
        try:
            match number % 3:
                case 0:
                    Order.read(bent(rng, ORDER).decode("latin-1"), steps=rng.choice((6, rng.randrange(12))))
                case 1:
                    read_stand_ins(self._stand_ins.bytes_at(number // 3, rng).decode("latin-1"), DATASET)
                case 2 if number % 60 == 59:
                    self._checkpoint(rng)
                case 2:
                    self._place(number // 3, rng)
        except BadInput as error:
            says_one_line(error, _FILE_LINE_CHARS)

    def _checkpoint(self, rng: random.Random) -> None:
        path = rng.choice(sorted(self._files))
        path.write_bytes(bent(rng, self._files[path]))
        try:
            self._checkpoints.load(Path(self._folder.name), Ranks())
        finally:
            path.write_bytes(self._files[path])

    def _place(self, number: int, rng: random.Random) -> None:
        try:
            state = json.loads(self._state.bytes_at(number, rng))
        except (ValueError, RecursionError):  # whoever reads the file says so
            return
        assert SAMPLER.step_of(state if isinstance(state, dict) else {}) >= 0


PARSERS: dict[str, Callable[[], Any]] = {
    "tcp headers": Headers,
    "grpc messages": Protos,
    "shm datagrams": ShmDatagrams,
    "worker messages": WorkerMessages,
    "tcp replies": Replies,
    "grpc replies": ReplyProtos,
    "shm replies": ReplyDatagrams,
    "registry entries": Entries,
    "manifest": lambda: JsonLines(MANIFEST_NAME, lambda folder: (read_manifest(folder), read_identity(folder))),
    "quarantine": lambda: JsonLines(QUARANTINE_NAME, read_quarantine),
    "packet index": Indices,
    "run state": RunStates,
}
