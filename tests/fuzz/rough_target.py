"""A fuzz target in which something is wrong at some of its inputs: what finds that is tried with it."""

from __future__ import annotations

import os
import random
from pathlib import Path


class Rough:
    """A target in which something is wrong at some of its inputs."""

    def turn(self, number: int, rng: random.Random) -> int:
        if number == 3:
            raise RuntimeError("an oversight")
        if number == 5:
            os._exit(9)
        if number == 8:
            Path("/proc/self/mem").read_text()  # an OSError
        return 1

    def close(self) -> int:
        return 0
