"""What all tests have alike, however they are started.

Property tests have no deadline of their own: on a shared machine it fails at random; pytest-timeout bounds them. A
shell's background jobs ignore Ctrl-C and so would all that they start: tests send it to themselves and to others. Where
there is no GPU, Triton's kernels are interpreted, which it decides when it is imported.
"""

import os
import signal
from pathlib import Path

from hypothesis import settings

settings.register_profile("framefeed", deadline=None)
settings.load_profile("framefeed")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
