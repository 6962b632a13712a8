"""How a process writes its log: a line a record, whatever text others put into it. It knows no record's meaning.

Names of files and what peers said come into the log of this and of other packages; a line end among them would forge a
record, an escape command the terminal that shows it.
"""

from __future__ import annotations

import logging

from framefeed.cli.at_once import STDERR
from framefeed.cli.standard_streams import bound_stderr, do_not_block, open_standard_streams
from framefeed.show_value import one_line, printable

MAX_LINE_CHARS = 4000
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_WORKER_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s"


class LineFormatter(logging.Formatter):
    """Formats a record as one printable line, and a traceback behind it as its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The record's line."""
        return one_line(super().formatMessage(record), chars=MAX_LINE_CHARS)

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's name
        """The traceback's lines."""
        return printable(super().formatException(ei), keep="\n")  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802  # logging's name
        """The stack's lines."""
        return printable(super().formatStack(stack_info), keep="\n")


def log_to_stderr(*, worker: bool = False) -> None:
    """Log from INFO on; a worker's lines say which process wrote them. None waits for whoever reads them, nor does what
    libraries write to stderr. Call it before a sandbox keeps /proc from this process.
    """
    open_standard_streams()
    do_not_block(STDERR)
    bound_stderr()
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(_WORKER_FORMAT if worker else _FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def log_warnings() -> None:
    """Where nobody set up logging, warnings go to stderr as they are: let them be lines too."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LineFormatter("%(message)s"))
