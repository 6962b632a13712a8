"""Encoder options that make the bytes of a chunk the same in every run, whatever the processor.

With AVX-512 x264's macroblock tree reads memory that it never wrote: at widths that are no multiple of 256 px two
encodes of one source differ (core 165; the same encode under glibc's MALLOC_PERTURB_ of 0, 17, 85, 170 and 255 gave
four results, and one with AVX2, in the same time). So x264 is held to AVX2, which also gives all machines one result.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from decode_server.chunking.profiles import EncodingProfile

_CPU_INFO = Path("/proc/cpuinfo")
_X264, _X264_PARAMS = "libx264", "x264-params"


def steady_options(profile: EncodingProfile) -> dict[str, str]:
    """What FFmpeg is told to encode with a profile on this machine; a user's own `asm` stays."""
    options = profile.encoder_options
    if profile.codec == _X264 and _has_avx512() and "asm=" not in options[_X264_PARAMS]:
        options[_X264_PARAMS] += ":asm=avx2,fma3,bmi2,lzcnt"
    return options


@cache
def _has_avx512() -> bool:
    return _CPU_INFO.is_file() and " avx512f" in _CPU_INFO.read_text()
