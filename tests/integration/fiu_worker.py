"""The product's worker, a tenth of whose reads fail with EIO: libfiu stands between it and the C library.

CPython reads by preadv2(2), which libfiu does not know: a shim makes preadv of it, which it does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from decode_server.service.workers.supervisor import WORKER_COMMAND

FOLDER = "FRAMEFEED_SHIM_FOLDER"
"""The environment's name for where the shim is to be made."""
_FAILING = "enable_random name=posix/io/rw/preadv,probability=0.1,failinfo=5\n"  # EIO
_LIBRARIES = [Path("/usr/lib/fiu") / name for name in ("fiu_run_preload.so", "fiu_posix_preload.so")]
_SHIM = """
#define _GNU_SOURCE
#include <sys/uio.h>
ssize_t preadv64v2(int file, const struct iovec *into, int many, off64_t at, int flags)
{ return preadv64(file, into, many, at); }
"""


def libfiu_can_run() -> str:
    """Why not; empty if it can."""
    if not all(library.exists() for library in _LIBRARIES):
        return "libfiu is not installed (Debian: fiu-utils)"
    return "" if shutil.which("cc") else "no C compiler is installed"


def _make_shim(folder: Path) -> Path:
    (folder / "shim.c").write_text(_SHIM)
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder / "shim.so"


if __name__ == "__main__":
    shim = _make_shim(Path(os.environ[FOLDER]))
    os.environ["LD_PRELOAD"] = " ".join(map(str, (*_LIBRARIES, shim)))
    os.environ["FIU_ENABLE"] = _FAILING
    os.execv(WORKER_COMMAND[0], [*WORKER_COMMAND, *sys.argv[1:]])
