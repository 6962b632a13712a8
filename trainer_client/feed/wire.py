"""What the feed needs of its connections; it knows no transport."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainer_client.transports.transport import Signal


class Wire(Protocol):
    """Connections to servers by URL; every call is made by the feed's thread."""

    def connect(self, url: str) -> None: ...

    def disconnect(self, url: str) -> None: ...

    def trouble(self, url: str) -> str: ...

    def send(self, url: str, header: bytes) -> bool: ...

    def wait(self, timeout_s: float) -> list[Signal]: ...

    def header(self, url: str) -> bytes | None: ...

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int: ...


OpenWire = Callable[[socket.socket], AbstractContextManager[Wire]]
"""Opens them, given what wakes their wait."""
