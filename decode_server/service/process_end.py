"""How a process ended, in words, by its exit code. It knows no process."""

from __future__ import annotations

import signal


def describe_end(code: int | None) -> str:
    """What follows its name: of a code that is negative, as subprocess gives it, the signal."""
    if code is not None and code < 0:
        return f"died by signal {-code} ({signal.strsignal(-code)})"
    return f"exited with code {code}"
