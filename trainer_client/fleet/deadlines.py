"""Deadlines: what is to be done about an attempt that has taken so long. Pure: one enum of steps, decided by times.

Slow is not lost. An attempt that is overdue has a second server asked for its clip, and its own server asked whether it
lives. If that says nothing it is silent, and the attempt lost; if it does, the attempt may take its full time. Whoever
is cancelled has a moment for the last word, so that what is still under way stays counted.
"""

from __future__ import annotations

from enum import Enum

from trainer_client.fleet.attempts import Attempt, Stage


class Step(Enum):
    """What is due for an attempt."""

    OVERDUE = "overdue"  # ask whether its server lives, and a second one for the clip
    SLOW = "slow"  # nothing: it may take its full time
    SILENT = "silent"  # its server is not there
    TIME_UP = "time_up"  # cancel it and ask another server
    GONE = "gone"  # it was cancelled and no last word came, from a server that lives
    MUTE = "mute"  # nor any other from that server


def step_of(attempt: Attempt, *, heard: bool, now_s: float) -> Step:
    """What is due at its `look_s`; `heard` is whether its server said anything since the attempt's stage began."""
    if attempt.stage is Stage.CANCELLED:
        return Step.GONE if heard else Step.MUTE
    if now_s >= attempt.give_up_s:
        return Step.TIME_UP
    if attempt.stage is Stage.OVERDUE:
        return Step.SLOW if heard else Step.SILENT
    return Step.OVERDUE
