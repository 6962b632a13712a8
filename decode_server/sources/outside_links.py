"""The folders outside of a root that its videos lie in, where links to them were followed: a list beside the index.

A server reads there only if it is told to follow links: whoever can write into an index could name any folder. It
resolves no link itself.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
from msgspec import Struct

from decode_server.sources.file_names import as_path, as_text
from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from framefeed.regular_file import read_regular

LINKS_NAME = "framefeed.links.json"
_VERSION = 1
_LIST_BYTES = 1 << 20
_MOST_FOLDERS = 1024


class _Links(Struct):
    framefeed_links: int
    folders: list[str]


def write_outside(index_folder: Path, folders: Collection[str]) -> None:
    """Write the list, no file if it is empty. Raises OSError, BadInput for too many."""
    path = index_folder / LINKS_NAME
    if not folders:
        path.unlink(missing_ok=True)
        return
    if len(folders) > _MOST_FOLDERS:
        raise BadInput(f"links lead into {len(folders)} folders outside of the root, wanted at most {_MOST_FOLDERS}")
    links = _Links(framefeed_links=_VERSION, folders=sorted(map(as_text, folders)))
    write_whole(path, msgspec.json.encode(links))


def read_outside(index_folder: Path) -> tuple[Path, ...]:
    """The folders that are listed, none where there is no list. Raises BadInput for a list that is damaged."""
    path = index_folder / LINKS_NAME
    try:
        links = msgspec.json.decode(read_regular(path, limit_bytes=_LIST_BYTES), type=_Links)
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise BadInput(f"list of links {path} cannot be read ({error}); run 'framefeed index' again") from None
    folders = tuple(Path(as_path(folder)) for folder in links.folders)
    if links.framefeed_links != _VERSION or len(folders) > _MOST_FOLDERS or not all(f.is_absolute() for f in folders):
        raise BadInput(f"list of links {path} is damaged; run 'framefeed index' again")
    return folders
