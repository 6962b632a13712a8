"""What all tests have alike, however they are started.

Property tests have no deadline of their own: on a shared machine it fails at random; pytest-timeout bounds them. A
shell's background jobs ignore Ctrl-C and so would all that they start: tests send it to themselves and to others. Where
there is no GPU, Triton's kernels are interpreted, which it decides when it is imported.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("framefeed", deadline=None)
settings.load_profile("framefeed")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def no_real_time_threads() -> Iterator[None]:
    """No test leaves this process before all others, as an encoder can: the tests beside it would wait for seconds."""
    yield
    policy = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert policy == os.SCHED_OTHER, "a real-time thread was left"
