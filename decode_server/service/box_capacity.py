"""What a box decodes with and what its network can carry, in one line. What a thread decodes is not guessed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

NETWORKS = Path("/sys/class/net")
_CLIP_PX = 4 * 224 * 224
_RGB_BITS, _YUV_BITS = 24 * _CLIP_PX, 12 * _CLIP_PX


def read_links(networks: Path) -> dict[str, int]:
    """Mb/s of each network link that is up and says how fast it is."""
    links: dict[str, int] = {}
    for folder in sorted(networks.glob("*")):
        with contextlib.suppress(OSError, ValueError):
            speed = int((folder / "speed").read_text())
            if speed > 0 and (folder / "operstate").read_text().strip() == "up":
                links[folder.name] = speed
    return links


def describe_capacity(threads: Sequence[int], links: Mapping[str, int]) -> str:
    """One line of the decoding threads of each front, and of the clips a second that each link carries."""
    fronts = f"{len(threads)} front{'s' * (len(threads) > 1)}"
    each = ", ".join(map(str, threads))
    line = (
        f"{fronts} for {sum(threads)} decoding threads ({each}); 1,000 clips/s of 4x224x224 take "
        f"{1000 * _RGB_BITS / 1e9:.1f} Gb/s as RGB, {1000 * _YUV_BITS / 1e9:.1f} as YUV"
    )
    for name, speed in links.items():
        rgb, yuv = (int(speed * 1e6 / bits) for bits in (_RGB_BITS, _YUV_BITS))
        line += f"; {name} carries {speed / 1000:g} Gb/s: at most {rgb:,} or {yuv:,} clips/s"
    return line
