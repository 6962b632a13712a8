"""Names are looked up within a limit, by one thread a name, whatever the resolver does."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from framefeed.name_lookup import Place, connect_to, places_of

HERE: Place = (socket.AF_INET, ("127.0.0.1", 80))


def test_a_resolver_that_says_nothing_is_waited_for_by_one_thread_and_no_longer_than_the_limit() -> None:
    asked, answer = [], threading.Event()

    def silent(host: str, port: int) -> list[Place]:
        asked.append(host)
        answer.wait(20)
        return [HERE]

    began_s = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError, match=r"'slow\.example' is not looked up within 0\.05 s"):
            places_of("slow.example", 80, limit_s=0.05, look_up=silent)
    assert time.monotonic() - began_s < 20
    threads = [thread for thread in threading.enumerate() if thread.name == "name-lookup"]
    assert all(thread.daemon for thread in threads)
    assert asked == ["slow.example"]
    answer.set()
    assert places_of("slow.example", 80, limit_s=20, look_up=silent) == [HERE]


@pytest.mark.parametrize("name", ["a..b", "x" * 300, "no name at all"])
def test_what_is_no_name_is_an_error_of_one_kind(name: str) -> None:
    with pytest.raises(OSError, match=r"[Nn]ame") as caught:
        places_of(name, 80, limit_s=20)
    assert not isinstance(caught.value, TimeoutError)


def test_of_several_addresses_one_that_answers_is_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with connect_to("localhost", port, limit_s=20) as connection:
            assert connection.getpeername()[1] == port
    with pytest.raises(OSError, match="refused"):
        connect_to("127.0.0.1", port, limit_s=20)
