"""The `framefeed` command: the process around one verb, whatever signal comes and whichever stream is closed.

It knows no verb, and imports what does only once neither an interrupt nor a missing stream can do harm: this file is to
import nothing that takes long.
"""

from __future__ import annotations

import sys

from framefeed.cli.interrupts import end_on_interrupt


def main(args: list[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted, 141 where stdout's reader
    has gone. `args`: None are those of this process, which is to end with the verb.

    Raises SystemExit after a page of help.
    """
    if args is None:
        end_on_interrupt()
        from framefeed.cli import standard_streams  # noqa: PLC0415  # imports, in which signals come

        standard_streams.open_standard_streams()
        standard_streams.watch_stdout()
        standard_streams.bound_stderr()
    from framefeed.cli.verbs import run_verb  # noqa: PLC0415  # a second of them

    if args is not None:
        return run_verb(args)
    try:
        return run_verb(sys.argv[1:]) or standard_streams.flush_stdout()
    except SystemExit as shown:  # a page of help
        raise SystemExit(shown.code or standard_streams.flush_stdout()) from None
