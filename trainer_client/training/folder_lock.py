"""Keeps a folder for one run at a time, by a lock that ends with its process. It knows nothing of what is in it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.new_folder import new_folder

_log = logging.getLogger(__name__)


@contextmanager
def only_user(folder: Path) -> Iterator[None]:
    """Within it no other run has the folder, which is made if need be, and goes again if nothing came to lie in it.

    Where a file system has no locks, that is said, and it is as if nobody had it.

    Raises BadInput, at once, if another run has it, or if it cannot be made.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(new_folder(folder))
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BadInput(f"--out {folder} cannot be used: {error.strerror}") from None
        stack.callback(os.close, held)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"--out {folder} is in use by another run; wanted another --out, or its end") from None
        except OSError as error:
            _log.warning("--out %s cannot be locked (%s): keep other runs out of it", folder, error.strerror)
        yield
