"""The small videos, servers and plans that chaos is done to; it knows none of the faults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decode_server.indexing.index import Index
from decode_server.service.listeners.curve import Keys
from tests.chaos.box import Box, fixed_bind
from tests.chaos.schedule import chaos_seed
from tests.chaos.trainer import Plan
from tests.integration.serving import Server
from tests.videos import make_numbered_video

SERVER = ("--workers", "1", "--threads", "1", "--buffer-pool-mib", "16", "--drain-s", "10")
ATTEMPT_S, GRACE_S = 2.0, 1.0  # what the plans choose, and what a server has beyond it to say that it was too slow


def make_videos(folder: Path, **fields: Any) -> Path:
    """Three short indexed videos in a folder; `fields` are other ones of NumberedVideo."""
    for number in range(3):
        make_numbered_video(folder / f"clip{number}.mp4", frames=90 + 30 * number, width_px=96, height_px=64, **fields)
    Index(root=folder, jobs=1).run()
    return folder


@contextlib.contextmanager
def boxes(
    folder: Path,
    root: Path,
    *,
    count: int,
    transport: str = "tcp",
    rough: bool = False,
    options: Sequence[str] = (),
) -> Iterator[list[Box]]:
    """So many servers of the root, all ready, each behind a proxy of its own and on bad storage if `rough`."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            seed = chaos_seed() + number if rough else None
            made.append(Box(folder, root, *SERVER, *options, bind=fixed_bind(transport), proxy_seed=seed))
            stack.push(made[-1].__exit__)  # also when a later one does not start
        for box in made:
            box.wait()
        yield made


@dataclass(frozen=True)
class CurveKeys:
    """A key pair of the servers and one of the trainers, as files, and what each side is to be given of them."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("server", "trainer"):
            Keys(folder=self.folder, name=name).run()

    @property
    def of_servers(self) -> tuple[str, ...]:
        """Options of `serve`."""
        return (
            "--curve-key",
            str(self.folder / "server.secret"),
            "--curve-allow",
            str(self.folder / "trainer.public"),
        )

    @property
    def of_trainers(self) -> dict[str, str]:
        """Credentials of a loader."""
        return {
            "curve_key": str(self.folder / "trainer.secret"),
            "curve_server": str(self.folder / "server.public"),
        }


def address(server: Box | Server | str) -> str:
    """Where clients find it."""
    if isinstance(server, str):
        return server
    return server.url if isinstance(server, Box) else server.endpoint


def plan(root: Path, folder: Path, servers: Sequence[Box | Server | str], **changes: Any) -> Plan:
    """A plan over these servers; `changes` are fields of Plan, or of its LoaderOptions."""
    loader = {
        "servers": [address(server) for server in servers],
        "batch_clips": 20,
        "steps": 100,
        "run_seed": 3,
        "prefetch_batches": 2,
        "attempt_s": ATTEMPT_S,
        "stall_s": 60.0,
    }
    fields = {name: changes.pop(name) for name in list(changes) if name in Plan.__dataclass_fields__}
    return Plan(root=str(root), folder=str(folder), loader={**loader, **changes}, **fields)
