"""The process that an object belongs to: it is refused in every other one, in one line. It knows nothing of the object.

A forked child has a copy of the object, but not of its threads; pickling would take the object to a process that has
neither its threads nor its connections.
"""

from __future__ import annotations

import os
from typing import NoReturn

from framefeed.errors import BadInput

_INSTEAD = "make it in the process that iterates, as under DataLoader(num_workers=0): servers do the prefetching"


class HomeProcess:
    """Mixin of what only works where it was made."""

    def __init__(self) -> None:
        self._made_in = os.getpid()

    @property
    def _is_home(self) -> bool:
        return os.getpid() == self._made_in

    def _check_home(self) -> None:
        """Raise BadInput in another process."""
        if not self._is_home:
            raise BadInput(
                f"a {type(self).__name__} made in process {self._made_in} is used in process {os.getpid()}; {_INSTEAD}"
            )

    def __reduce__(self) -> NoReturn:
        """Raises BadInput: it is neither pickled nor copied."""
        raise BadInput(f"a {type(self).__name__} cannot leave process {self._made_in} that made it; {_INSTEAD}")
