"""A process that must not outlive its parent, whatever ends the parent; knows nothing of what either does. Linux only.

`python -m framefeed.cli.parent_death PARENT COMMAND...` becomes COMMAND, under the same process id.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when process `parent` ends, even if all of its threads are stuck in a read.

    It is the thread that started this process whose end counts: start children from one that stays. Kept over exec.
    Ends this process at once if its parent is another one, which means that `parent` is gone already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - as the parent wrote it
