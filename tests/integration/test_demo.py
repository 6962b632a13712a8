"""The demo: it ends well on a user's folder, names what it cannot use, and leaves no process however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.footprint import mentioning
from tests.integration.serving import wait_until
from tests.videos import make_numbered_video

DEMO = ("-c", "from framefeed.cli.command import main; raise SystemExit(main())", "demo")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    make_numbered_video(folder / "long.mp4", frames=240, width_px=192, height_px=128)
    make_numbered_video(folder / "short.mkv", frames=4, width_px=192, height_px=128)
    (folder / "notes.mp4").write_text("this is no video")
    return folder


def start(videos: Path, out: Path, *, seconds: int) -> subprocess.Popen[str]:
    command = [sys.executable, *DEMO, "--videos", str(videos), "--out", str(out), "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_trains_through_the_death_of_a_server(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = start(videos, out, seconds=15)
    said = demo.communicate(timeout=240)[0]
    assert demo.returncode == 0, said
    summary = json.loads((out / "run" / "summary.json").read_text())
    assert summary["loss_last"] < summary["loss_first"]
    assert sorted(summary["servers"].values()) == ["offline", "up"]
    assert (out / "run" / "contact_sheet.png").stat().st_size > 10_000
    assert f"refused: {videos}/notes.mp4:" in said
    assert "2 of 3 (1 refused)" in said
    assert "by SIGKILL after step" in said
    assert "servers up 0" not in said, "what is said of a run that has ended is no alarm"
    steps = summary["last_step"]
    assert ("all its 240 steps were done" if steps == 240 else "its 15 s were over") in " ".join(said.split())
    assert not (out / "root").exists()
    assert not mentioning(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way_it_leaves_no_process(videos: Path, tmp_path: Path, number: signal.Signals) -> None:
    demo = start(videos, tmp_path / "demo", seconds=60)
    wait_until("the trainer", (tmp_path / "demo" / "run" / "run.json").exists, patience_s=60)
    demo.send_signal(number)
    said = demo.communicate(timeout=60)[0]
    assert demo.returncode in (130, 143), said
    assert "Traceback" not in said
    assert not mentioning(tmp_path)


@pytest.mark.slow
def test_killed_it_leaves_no_process(videos: Path, tmp_path: Path) -> None:
    demo = start(videos, tmp_path / "demo", seconds=60)
    wait_until("the trainer", (tmp_path / "demo" / "run" / "run.json").exists, patience_s=60)
    demo.kill()
    demo.wait(20)
    wait_until("its children are gone", lambda: not mentioning(tmp_path))


def test_a_folder_that_is_not_a_demos_is_left_alone(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    demo = start(videos, tmp_path, seconds=1)
    said = demo.communicate(timeout=60)[0]
    assert demo.returncode == 2
    assert said.count("\n") == 1
    assert "exists and is not of a demo" in said
    assert (tmp_path / "run").is_dir()
