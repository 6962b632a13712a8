"""Where and when a number was measured: written into every result. It measures nothing itself."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def provenance() -> dict[str, str]:
    """Processor, core count of this process, Python, commit and date of a measurement."""
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
