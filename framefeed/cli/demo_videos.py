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
        if self.videos < 1 or not self.seconds > 0:
            raise BadInput(f"--videos {self.videos} --seconds {self.seconds:g} is no video; wanted more than 0 of both")
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
