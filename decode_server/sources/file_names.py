"""Names of files as text that every list, message and log can hold, also of those whose bytes are no UTF-8.

A file system takes any bytes but "/" and NUL; manifests, requests and reports are UTF-8. A path that is UTF-8 is its
own text. In another one each odd byte is spelled %XX (and % as %25), behind a mark that no path below a root begins
with. It looks at no disk.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from framefeed.show_value import printable

_MARK = "//"
_ODD = re.compile("[\udc80-\udcff%]")
_SPELLED = re.compile("%(25|[89A-F][0-9A-F])")
_NAME_BYTES = 255  # of one part of a path, on every file system in use
_CUT_MARK, _DIGEST_BYTES = "~", 4


def is_utf8(path: str) -> bool:
    """Whether a path as `os.fsdecode` gives it, odd bytes as lone surrogates, can be written as UTF-8."""
    return path.isascii() or not re.search("[\ud800-\udfff]", path)


def spelled(path: str) -> str:
    """The path, its odd bytes as %XX if it has any: fit for names of videos. Two may be spelled alike."""
    return path if is_utf8(path) else _ODD.sub(lambda odd: f"%{ord(odd[0]) & 0xFF:02X}", path)


def as_text(path: str) -> str:
    """A path below a root as text that `as_path` turns back."""
    return path if is_utf8(path) else _MARK + spelled(path)


def as_path(text: str) -> str:
    """The path that `as_text` was given. Raises nothing: what is no such text is a path of that spelling."""
    if not text.startswith(_MARK):
        return text
    return _SPELLED.sub(lambda byte: _byte(int(byte[1], 16)), text.removeprefix(_MARK))


def for_people(path: str) -> str:
    """The path as one printable line."""
    return printable(spelled(path))


def stem_of(path: str) -> str:
    """What the video of a file is called if nothing else is: its path without the suffix, spelled."""
    return spelled(str(PurePosixPath(path).with_suffix("")))


def video_names(owners: Sequence[str], *, given: Mapping[str, str]) -> dict[str, str]:
    """What the video of each path (a file, or a folder of chunks) is called: the path without its suffix, with it where
    two would be called the same. A name that was `given` once, by path, stays, whatever lies beside it now; a path
    whose name would still be another's is left out.
    """
    names = {owner: given.get(owner) or stem_of(owner) for owner in owners}
    settled = {owner for owner in owners if owner in given}
    while True:
        takers = Counter(names.values())
        alike = [owner for owner in owners if owner not in settled and takers[names[owner]] > 1]
        if not alike:
            break
        names |= {owner: spelled(owner) for owner in alike}
        settled.update(alike)
    first_of = {name: owner for owner, name in reversed(names.items())}
    return {owner: name for owner, name in names.items() if first_of[name] == owner}


def fitting(name: str, *, suffix: str) -> str:
    """A video's name of which each part is short enough for a folder of that name, the last one with `suffix` behind
    it: the end of a longer one is left out, with a hash of it in its place.
    """
    *folders, last = name.split("/")
    return "/".join((*(_cut(folder, _NAME_BYTES) for folder in folders), _cut(last, _NAME_BYTES - len(suffix))))


def _cut(part: str, most_bytes: int) -> str:
    whole = part.encode()
    if len(whole) <= most_bytes:
        return part
    digest = hashlib.blake2b(whole, digest_size=_DIGEST_BYTES).hexdigest()
    kept = whole[: most_bytes - len(_CUT_MARK) - len(digest)].decode(errors="ignore")
    return f"{kept}{_CUT_MARK}{digest}"


def _byte(value: int) -> str:
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
