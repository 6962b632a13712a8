"""Every transport with every kind of security carries clips of the sizes users have, and room for no more is enough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from framefeed.crops import RandomResizedCrop
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import ClipReply
from tests.integration.fake_worker import pattern_of
from tests.integration.serving import Server, request
from tests.integration.ways import OPEN, SECURED, Way, way
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.transport import Kind

POOL_MIB = 96  # two of the largest and some more
SIZES = pytest.mark.parametrize(("frames", "side_px", "clips"), [(4, 224, 40), (16, 224, 16), (64, 448, 2)], ids=str)


@pytest.fixture(scope="module", params=[*OPEN, *SECURED])
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Way:
    return way(request.param, tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(spoken: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with spoken.start(tmp_path_factory.mktemp("server"), pool_mib=POOL_MIB) as server:
        yield server


def pattern(frames: int, side_px: int, seed: int) -> ClipRequest:
    return request("pattern", frames=frames, side_px=side_px, seed=seed)


@SIZES
def test_many_at_a_time_come_as_they_were_decoded(
    spoken: Way, server: Server, frames: int, side_px: int, clips: int
) -> None:
    """With room for one clip and not a byte more: what is added on the way must not count."""
    wanted = {seed: pattern(frames, side_px, seed) for seed in range(clips)}
    with spoken.talker(server.endpoint, clip_bytes=wanted[0].clip_bytes) as talker:
        for seed, one in wanted.items():
            talker.ask(one, attempt=seed)
        for _ in range(clips):
            reply, pixels = talker.receive()
            assert isinstance(reply, ClipReply)
            assert pixels == pattern_of(wanted.pop(reply.attempt)).tobytes()
        assert Kind.LOST not in talker.seen


@pytest.mark.parametrize("frames", [4, 16])
def test_a_loader_gets_its_plan(spoken: Way, server: Server, frames: int) -> None:
    policy = ClipPolicy(sampling=Segments(frames=frames), crop=RandomResizedCrop(), width_px=224, height_px=224)
    samples = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(16)]
    options = LoaderOptions(servers=[server.endpoint], batch_clips=4, steps=6, credentials=spoken.credentials)
    with ClipLoader(samples, policy, options) as run:
        for batch in run:
            for row, sample in enumerate(batch.samples):
                wanted = policy.request(sample, int(batch.seeds[row]))
                assert np.array_equal(batch.pixels[row].reshape(-1), pattern_of(wanted))
        assert run.stats.conserved
        assert run.stats.requested == run.stats.used == 24
