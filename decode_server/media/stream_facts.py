"""What container and codec say of a whole stream, before anything is decided by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from decode_server.media.file_end import FileEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """What container and codec say of a stream as a whole. `end` and `frames` are what the head promises, 0 where it
    promises nothing; `trimmed` if an edit list leaves out some of what the container holds. `note` is about the choice
    of the stream, `dropped` when frames would show that FFmpeg drops; `file_end` is how the file ends. `alpha_beside`
    if an alpha channel lies beside the pictures, as WebM has it.
    """

    container: str
    time_base: Fraction
    frames_per_s: Fraction
    reordered: bool
    frames: int
    end: int
    file_end: FileEnd
    trimmed: bool = False
    note: str = ""
    dropped: Sequence[int] = ()
    alpha_beside: bool = False
