"""The other fronts of a server's box, as clients of each of its listeners are told of them. It knows no connection.

They are known once, for as long as the front lives: one that is started again keeps its addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from decode_server.service.box_addresses import sibling_url


class Siblings:
    """None until `learn`."""

    def __init__(self) -> None:
        self._of_listener: tuple[tuple[str, ...], ...] = ()

    def learn(self, fronts: Sequence[Sequence[str]]) -> None:
        """The URLs of each other front, one for each listener, in the same order as here."""
        self._of_listener = tuple(zip(*[[sibling_url(url) for url in urls] for urls in fronts], strict=True))

    def of(self, listener: int) -> tuple[str, ...]:
        """What the clients of a listener reach the others at."""
        return self._of_listener[listener] if self._of_listener else ()
