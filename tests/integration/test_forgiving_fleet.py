"""What is nobody's fault costs nobody anything: a stopped trainer, a slow clip, a server with other chunks."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from decode_server.indexing.index import Index
from framefeed.crops import ResizedCentreCrop
from framefeed.manifest import read_identity
from framefeed.sampling import Segments
from tests.chaos.batch_log import line_of
from tests.chaos.fleet import boxes, make_videos, plan
from tests.chaos.trainer import Trainer
from tests.clip_servers import ClipServer, Manner
from tests.faulty_mount import FaultyMount, possible
from tests.integration.serving import FAKE_SERVE, Gate, Server, outcome, wait_until
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.stand_ins import PoisonOptions
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

PAUSE_S, OUTAGE_S = 4.0, 60.0
CLIPS = {"frames": 4, "side_px": 224, "batch_clips": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "shm", "grpc"])
def test_a_trainer_that_is_stopped_for_a_while_loses_no_clip_and_blames_nobody(
    root: Path, tmp_path: Path, transport: str
) -> None:
    """Its deadlines are 2 s, and it is stopped for 4 s, twice, wherever its threads happen to be."""
    options = {"attempt_s": 10.0, "hedge_share": 0.0, "steps": 60, "prefetch_batches": 4, **CLIPS}
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(boxes(tmp_path, root, count=2, transport=transport))
        trainer = stack.enter_context(Trainer(plan(root, tmp_path / "paused", servers, **options)))
        for pause in (1, 2):
            wait_until("deadlines are learned", lambda pause=pause: len(trainer.lines()) >= 15 * pause)  # type: ignore[misc]
            trainer.process.send_signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)  # the thing that is tested
            trainer.process.send_signal(signal.SIGCONT)
        counts = trainer.finish(within_s=60)
        assert counts["used"] == 60 * 8
        assert counts["conserved"]
        assert set(counts["dropped"]) <= {"busy"}, "an attempt was given up"
        assert counts["overdue"] == 0
        decoded = sum(outcome(box.server.metrics(), "clip") for box in servers)
        assert decoded == counts["used"], "a clip was decoded in vain"
        with plan(root, tmp_path, servers, **options).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == [line.identity for line in trainer.lines()]


@pytest.mark.slow
def test_what_arrived_while_the_trainer_was_stopped_is_read_before_anybody_is_judged(
    root: Path, tmp_path: Path
) -> None:
    """Quick servers that may hold 48 clips each: far more than are read in one turn wait when it goes on."""
    options = {**CLIPS, "batch_clips": 16, "prefetch_batches": 8, "steps": 150, "hedge_share": 0.0, "attempt_s": 10.0}
    quick = Manner(workers=24, dataset=read_identity(root))
    with ClipServer(quick) as one, ClipServer(quick) as two:
        with Trainer(plan(root, tmp_path / "paused", [one.url, two.url], **options)) as trainer:
            for pause in (1, 2, 3):
                wait_until("it goes on", lambda pause=pause: len(trainer.lines()) >= 30 * pause)  # type: ignore[misc]
                trainer.process.send_signal(signal.SIGSTOP)
                time.sleep(PAUSE_S)  # the thing that is tested
                trainer.process.send_signal(signal.SIGCONT)
            counts = trainer.finish(within_s=60)
        assert (counts["used"], counts["dropped"], counts["overdue"]) == (150 * 16, {}, 0)
        assert one.decode_calls + two.decode_calls == 150 * 16, "a clip was decoded in vain"
        assert [line.step for line in trainer.lines()] == list(range(150))


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 2])
def test_a_clip_of_eight_seconds_is_served_in_its_time(tmp_path: Path, servers: int) -> None:
    """All others take milliseconds, so that deadlines are 2 s."""
    fake = tmp_path / "root"
    fake.mkdir()
    gate = Gate(tmp_path / "gate")
    policy = ClipPolicy(sampling=Segments(frames=4), crop=ResizedCentreCrop(), width_px=224, height_px=224)
    dataset = [Sample(video=gate.video if i == 300 else "clip", start_s=i, end_s=i + 1) for i in range(400)]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(Server(tmp_path, str(fake), "--workers", "1", "--threads", "2", program=FAKE_SERVE))
            for _ in range(servers)
        ]
        options = LoaderOptions(
            servers=[server.endpoint for server in running], batch_clips=4, epochs=1, shuffle=False, attempt_s=10.0
        )
        run = stack.enter_context(ClipLoader(dataset, policy, options))
        stack.callback(gate.close)
        opener = threading.Timer(8.0, gate.open)
        batches, began_s = 0, 0.0
        for _ in run:
            batches += 1
            if not began_s and gate.entered():
                began_s = time.monotonic()
                opener.start()
        assert batches == 100
        assert 0 < time.monotonic() - began_s <= 20
        stats = run.stats
        assert stats.requested - stats.used <= 2 + stats.hedged
        assert not {"deadline_exceeded", "server_lost"} & set(stats.dropped)
        assert stats.conserved
        assert set(stats.servers.values()) == {"up"}


@pytest.mark.slow
def test_a_stale_an_old_and_an_anew_coded_server_among_ten_are_named_and_change_no_byte(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Equal names and times: one has one video as it was before, one all of them coded anew, one is of version 1."""
    anew = make_videos(tmp_path / "anew", options={"preset": "veryfast", "crf": "40"})
    stale = Path(shutil.copytree(root, tmp_path / "stale"))
    shutil.copy(anew / "clip1.mp4", stale / "clip1.mp4")
    Index(root=stale, jobs=1).run()
    options = {"steps": 30, "prefetch_batches": 2, **CLIPS}
    with contextlib.ExitStack() as stack:
        odd = [
            *stack.enter_context(boxes(tmp_path, stale, count=1)),
            *stack.enter_context(boxes(tmp_path, anew, count=1)),
        ]
        old = stack.enter_context(ClipServer(Manner(old=True)))
        good = stack.enter_context(boxes(tmp_path, root, count=7))
        urls = [box.url for box in odd] + [old.url]
        with plan(root, tmp_path, [*urls, *good], **options).open() as run:
            seen = [line_of(batch).identity for batch in run]
            wait_until("all three are told", lambda: run.stats.shunned == {"dataset": 2, "version": 1})
            assert [run.stats.servers[url] for url in urls] == ["shunned"] * 3
            assert run.state_dict()["dataset"]
            assert run.stats.conserved
        named = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
        assert sorted(line.split()[1] for line in named) == sorted(urls)
        with plan(root, tmp_path, good, **options).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == seen
        for own, other in zip((stale, anew), odd, strict=True):
            with plan(own, tmp_path, [other], **options).open() as alone:
                assert [line_of(batch).identity for batch in alone] != seen, "its bytes are others"


@pytest.mark.slow
@pytest.mark.skipif(not possible(), reason="needs root and /dev/fuse")
def test_an_outage_of_all_storage_is_waited_out_and_poisons_nothing(root: Path, tmp_path: Path) -> None:
    """All reads of videos fail for a minute, longer than storage may fail for one clip while it works for others."""
    folder = tmp_path / "mount"
    folder.mkdir()
    options = {
        "steps": 40,
        "prefetch_batches": 2,
        "stall_s": OUTAGE_S / 2,
        "on_stall": "log",
        "poison": PoisonOptions(policy="replace", budget=0.9),
        **CLIPS,
    }
    with FaultyMount(root, suffix=".mp4").at(folder) as mount, boxes(tmp_path, folder, count=2) as servers:
        with plan(root, tmp_path, servers, **options).open() as run:
            seen = [line_of(next(run)).identity for _ in range(3)]
            mount.faults.extend([errno.EIO] * 1_000_000)
            until_s = time.monotonic() + OUTAGE_S
            healer = threading.Timer(OUTAGE_S, mount.faults.clear)
            healer.start()
            seen += [line_of(batch).identity for batch in run]
            assert time.monotonic() > until_s
            assert run.stats.retries["storage_fault"] > 0
            assert run.stats.stalls > 0
            assert (run.stats.poisoned, run.stats.stood_in) == ({}, 0)
            assert run.stats.conserved
        with plan(root, tmp_path, servers, **options).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == seen
