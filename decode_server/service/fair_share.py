"""How much of something shared one of its users may have. Pure arithmetic; it knows neither users nor what is shared.

A fixed share per user is too little for one and too much for many who hold on to it. By what is free, as in
shared-memory switches, whoever holds nothing always finds room.
Source: Choudhury and Hahne 1998, "Dynamic queue length thresholds for shared-memory packet switches", alpha = 1.
"""

from __future__ import annotations

NODE_RANKS = 8  # clients of a principal that count: more of them are no node of GPUs


def within_share(*, held: int, more: int, free: int, times: int = 1) -> bool:
    """Whether a user that has `held` may have `more` while `free` are left: no more than `times` (alpha) what is free
    before it, or its first.

    With 1, one user alone gets half, n users that hold on to what they have 1 / (n + 1) each, and as much stays free;
    with more, one alone leaves 1 / (times + 1).
    """
    return not held or held + more <= times * free


def shares_of(clients: int) -> int:
    """How many shares a principal with so many clients has beside others: one a client, as a node's ranks have, so that
    all ranks of a run get the same; but none for connections without end.
    """
    return max(min(clients, NODE_RANKS), 1)
