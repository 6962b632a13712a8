"""What is used of one media file: all of it, parts of it, or nothing, each with the reason. A value, the same in every
verb; it knows no verbs and opens no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

_TOUCHING_S = 1e-3  # times are rounded to microseconds

State = Literal["whole", "in part", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A stretch of a video, in seconds from its first frame, of which no frame is used, and why; `end_s` is None where
    it lasts to the end, and equals `start_s` where single frames between two that are used are left out.
    """

    start_s: float
    end_s: float | None
    reason: str

    def __str__(self) -> str:
        end = "its end" if self.end_s is None else f"{self.end_s:.2f} s"
        where = f"at {self.start_s:.2f} s" if self.end_s == self.start_s else f"from {self.start_s:.2f} s to {end}"
        return f"left out {where}: {self.reason}"


def joined(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Losses in order, those that touch made one under the reason of the first."""
    found: list[Loss] = []
    for loss in sorted(losses, key=lambda loss: loss.start_s):
        last = found[-1] if found else None
        if last is None or (last.end_s is not None and loss.start_s > last.end_s + _TOUCHING_S):
            found.append(loss)
        elif last.end_s is not None:
            end_s = None if loss.end_s is None else max(loss.end_s, last.end_s)
            found[-1] = replace(last, end_s=end_s)
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaUse:
    """What became of one file. `losses` are the stretches that are not used, in order; `notes` are lines about what is
    used but was not as it should be (a choice of stream, clocks that were joined, a pause that was cut out, HDR);
    `refused` is the reason why nothing of it is used, else empty. `used_s` is how long what is used lasts,
    `longest_frame_s` for how long the frame that stays longest is on show.
    """

    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""
    used_s: float = 0.0
    longest_frame_s: float = 0.0

    @property
    def state(self) -> State:
        """One of three words."""
        if self.refused:
            return "refused"
        return "in part" if self.losses else "whole"

    @property
    def warning(self) -> str:
        """Why a person should look at the file though it is used, empty if there is nothing to see: more than half of
        it is lost, or it is mostly one frozen frame.
        """
        lost_s = sum((self.used_s if loss.end_s is None else loss.end_s) - loss.start_s for loss in self.losses)
        if not self.refused and self.used_s and lost_s > self.used_s / 2:
            return f"{lost_s:.1f} of its {self.used_s:.1f} s are lost"
        if not self.refused and self.longest_frame_s > max(self.used_s / 2, 1.0):
            return f"one frame is on show for {self.longest_frame_s:.1f} of its {self.used_s:.1f} s"
        return ""

    def lines(self) -> tuple[str, ...]:
        """All that there is to say about it, a line each; none for a file that is used whole as it is."""
        said = (self.refused,) if self.refused else (*(str(loss) for loss in self.losses), *self.notes)
        return (*said, *((self.warning,) if self.warning else ()))
