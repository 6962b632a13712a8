"""How many requests a client may have: max-min fair by demand and weight, and never none."""

from __future__ import annotations

import pytest

from decode_server.service.credits import LATELY_S, QUEUE_S, Credits


def credits_of(weights: dict[str, float] | None = None, *, queue: int = 256) -> Credits:
    return Credits(lambda run: (weights or {}).get(run, 1.0), queue=queue)


@pytest.mark.parametrize(
    ("clip_s", "slots", "queue", "total"),
    [
        (0.02, 4, 256, 4 + int(4 * QUEUE_S / 0.02)),
        (0.001, 4, 256, 4 + 256),
        (30.0, 4, 256, 5),
        (0.01, 4, 1, 5),
        (None, 4, 256, 8),
    ],
    ids=["queue bounded in time", "by --queue", "at least one", "one", "nothing known yet"],
)
def test_what_there_is_to_share_is_the_slots_and_a_queue_bounded_in_time(
    clip_s: float | None, slots: int, queue: int, total: int
) -> None:
    target = credits_of(queue=queue)
    for _ in range(200 if clip_s else 0):
        target.decoded(clip_s or 0.0, 1)
    assert target.total(slots) == total
    target.asked(b"alone", "", 1.0)
    assert target.granted(b"alone", 1.0, slots=slots) == total


def test_who_asks_for_little_leaves_the_rest_to_the_others() -> None:
    target = credits_of()
    for _ in range(200):
        target.decoded(0.75, 1)  # 32 in work and 32 that wait
    for now_s in (0.0, LATELY_S, 2 * LATELY_S, 3 * LATELY_S):
        for client, wanted in ((b"a", 1), (b"b", 1), (b"c", 60), (b"d", 60)):
            for _ in range(wanted):
                target.asked(client, "", now_s)
        for client, wanted in ((b"a", 1), (b"b", 1), (b"c", 60), (b"d", 60)):
            for _ in range(wanted):
                target.replied(client)
    assert target.granted(b"c", 3 * LATELY_S, slots=32) == target.granted(b"d", 3 * LATELY_S, slots=32) == 30
    assert target.granted(b"a", 3 * LATELY_S, slots=32) == 30, "it may grow as far as the others"


def test_the_weights_of_runs_are_those_of_their_clients_together() -> None:
    target = credits_of({"heavy": 3.0})
    for _ in range(200):
        target.decoded(0.75, 1)
    for client, run in ((b"a", "heavy"), (b"b", "heavy"), (b"c", "light")):
        target.asked(client, run, 0.0)
    granted = [target.granted(client, 1.0, slots=32) for client in (b"a", b"b", b"c")]
    assert granted == [24, 24, 16], "64 in the proportion of 3 to 1"


def test_each_of_more_clients_than_slots_has_one_and_who_is_gone_has_none() -> None:
    target = credits_of()
    for number in range(512):
        target.asked(number.to_bytes(2), "", 0.0)
    assert {target.granted(number.to_bytes(2), 0.1, slots=4) for number in range(512)} == {1}
    for number in range(1, 512):
        target.gone(number.to_bytes(2))
    assert target.granted(b"\0\0", 0.2, slots=4) == target.total(4)
