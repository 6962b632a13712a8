"""The fingerprint: a short string that is equal on two servers only if they make the same bytes of a request.

It names what decides the bytes; it knows neither servers nor requests.
"""

from __future__ import annotations

import platform

import av

ENGINE_VERSION = 1
"""Raised with every change of framefeed after which a request may give other bytes, and with no other change: servers
of one engine version feed one run together, so a fleet can be upgraded while it runs.
"""
_DECIDING = ("libavcodec", "libavutil", "libswscale")


def decoder_fingerprint() -> str:
    """Versions of the engine and of the FFmpeg libraries that decode and scale, and the machine's architecture."""
    libraries = [f"{name}{'.'.join(map(str, av.library_versions[name]))}" for name in _DECIDING]
    return "-".join([f"engine{ENGINE_VERSION}", *libraries, platform.machine()])
