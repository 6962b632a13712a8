"""The verb `demo videos`: fills a folder with chunks of synthetic video, for who has none at hand; serves nothing."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from framefeed.cli.children import Children
from framefeed.cli.demo import FRAMEFEED
from framefeed.errors import BadInput
from framefeed.manifest import MANIFEST_NAME

_MOST_VIDEOS, _MOST_S = 10_000, 36_000  # more would fill a disk


@dataclass(frozen=True, kw_only=True)
class DemoVideos:
    """Fill a folder with three minutes of chunked synthetic video.

    A folder that has chunks already stays as it is.
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder that 'framefeed serve' and 'framefeed train' then take."""
    videos: int = 6
    """How many."""
    seconds: float = 30.0
    """How long each is."""

    def run(self) -> None:
        """Make them, in some 20 s of two cores. Raises FramefeedError if a step fails, BadInput for no video."""
        if not 1 <= self.videos <= _MOST_VIDEOS:
            raise BadInput(f"--videos is {self.videos}, wanted 1 to {_MOST_VIDEOS}")
        if not 0 < self.seconds <= _MOST_S:
            raise BadInput(f"--seconds is {self.seconds:g}, wanted more than 0, at most {_MOST_S:g}")
        if (self.root / MANIFEST_NAME).exists():
            print(f"{self.root} has chunks already")
            return
        with tempfile.TemporaryDirectory(prefix="framefeed-videos-") as scratch:
            source = Path(scratch) / "videos"
            amount = ("--videos", str(self.videos), "--seconds", f"{self.seconds:g}")
            make = (sys.executable, "-m", "decode_server.chunking.synthetic", str(source), *amount)
            with Children(Path(scratch) / "logs") as children:
                children.run("synthetic", make)
                children.run("chunk", (*FRAMEFEED, "chunk", str(source), "--out", str(self.root)), quiet=False)
