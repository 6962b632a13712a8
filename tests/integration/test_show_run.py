"""`framefeed show --run`: any step of a run that resumed twice on other servers is made again, byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest

from decode_server.indexing.index import Index
from framefeed.cli.command import main
from framefeed.errors import BadInput
from tests.integration.serving import SERVE, Server
from tests.videos import make_numbered_video
from trainer_client.training import loop
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.recipes.rebuild import rebuild_step
from trainer_client.training.recipes.show_run import ShowRun
from trainer_client.training.step import Run, StepTensors
from trainer_client.training.tasks.task import InputsT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVER = ("--workers", "1", "--threads", "1", "--buffer-pool-mib", "16")
SMALL = (
    *("--preset", "tiny", "--frames", "2", "--size-px", "32", "--stride-frames", "1", "--window-s", "0.1"),
    *("--batch-clips", "4", "--mask-ratio", "0.5", "--steps", "24", "--prefetch-batches", "2", "--hflip", "0.5"),
    *("--device", "cpu", "--precision", "fp32", "--threads", "1", "--metrics-port", "0"),
    *("--poison", "replace", "--poison-budget", "100", "--sheet-every", "4", "--price-per-gpu-hour", "2"),
)
DAMAGED = "clip1.mp4"  # after it was indexed: clips of its middle have stand-ins
STOPS_AFTER = (7, 15, 20)  # the last life ends before the plan does


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        make_numbered_video(folder / f"clip{number}.mp4", frames=90 + 30 * number, width_px=96, height_px=64)
    Index(root=folder, jobs=1).run()
    whole = (folder / DAMAGED).read_bytes()
    (folder / DAMAGED).with_suffix(".whole").write_bytes(whole)
    (folder / DAMAGED).write_bytes(whole[: len(whole) // 3] + bytes(len(whole) // 3) + whole[len(whole) // 3 * 2 :])
    return folder


class Trained:
    """A run of three lives on one, two and one servers, and the digest of what each of its steps was trained on."""

    def __init__(self, folder: Path, digests: list[str]) -> None:
        self.folder, self.digests = folder, digests


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out, digests = tmp_path_factory.mktemp("run") / "run", list[str]()
    real_step: Callable[..., StepTensors] = loop.train_step

    def observed(run: Run[InputsT], batch: DeviceBatch) -> StepTensors:
        digests.append(hashlib.sha256(batch.pixels.numpy()).hexdigest())
        if len(digests) in STOPS_AFTER:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_step(run, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", observed)
        for life, servers in enumerate((1, 2, 1)):
            with ExitStack() as stack:
                logs = tmp_path_factory.mktemp(f"life{life}")
                urls = [
                    stack.enter_context(Server(logs, str(root), *SERVER, program=SERVE)).endpoint
                    for _ in range(servers)
                ]
                resume = ("--resume",) if life else ()
                assert main(["train", "mae", str(root), "--out", str(out), *SMALL, "--servers", *urls, *resume]) == 0
                assert len(digests) == STOPS_AFTER[life]
    return Trained(out, digests)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Server(tmp_path_factory.mktemp("logs"), str(root), *SERVER, program=SERVE) as one:
        yield one.endpoint


@pytest.mark.parametrize("step", [1, 7, 8, 15, 16, 20])
def test_any_step_is_made_again_with_the_bytes_that_were_trained_on(trained: Trained, server: str, step: int) -> None:
    rebuilt = rebuild_step(trained.folder, step, servers=(server,) if step > 1 else ("local",))
    assert hashlib.sha256(rebuilt.batch.pixels).hexdigest() == trained.digests[step - 1]
    assert (rebuilt.step, rebuilt.recorded, rebuilt.world) == (step, True, 1)


def test_who_stood_in_stands_in_again_even_when_the_videos_are_whole_again(
    trained: Trained, root: Path, tmp_path: Path
) -> None:
    healed = tmp_path / "healed"
    shutil.copytree(root, healed)
    (healed / DAMAGED).with_suffix(".whole").rename(healed / DAMAGED)
    stood_in = 0
    with Server(tmp_path, str(healed), *SERVER, program=SERVE) as server:
        for step in range(1, STOPS_AFTER[-1] + 1):
            batch = rebuild_step(trained.folder, step, root=healed, servers=(server.endpoint,)).batch
            assert hashlib.sha256(batch.pixels).hexdigest() == trained.digests[step - 1]
            stood_in += len(batch.stand_ins)
    assert stood_in >= 5


def test_what_the_run_looked_at_while_it_trained_are_the_same_clips(trained: Trained, server: str) -> None:
    looks = [json.loads(path.read_text()) for path in (trained.folder / "clips").glob("*.json")]
    assert {look["step"] for look in looks} <= {4, 8, 12, 16, 20}
    assert looks
    for look in looks:
        batch = rebuild_step(trained.folder, look["step"], servers=(server,)).batch
        digests = {clip["row"]: clip["sha256"] for clip in look["clips"]}
        assert digests == {row: hashlib.sha256(clip).hexdigest() for row, clip in enumerate(batch.pixels)}


def test_the_record_leads_to_the_videos_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_numbered_video(tmp_path / "videos/clip.mp4", frames=90, width_px=96, height_px=64)
    Index(root=Path("videos"), jobs=1).run()
    assert main(["train", "mae", "videos", "--out", "run", *SMALL, "--servers", "local", "--steps", "1"]) == 0
    assert json.loads(Path("run/recipe.json").read_text())["how"]["root"] == str(tmp_path / "videos")


def test_the_summary_says_what_the_run_took(trained: Trained) -> None:
    said = json.loads((trained.folder / "summary.json").read_text())
    assert (said["gpu_hours"], said["price_per_gpu_hour"], said["cost"]) == (0, 2, 0), "on a CPU"
    assert said["energy_unread"]["gpu"] == "the run has no GPU"
    assert "cpu" in said["energy_j"] or said["energy_unread"]["cpu"]


def test_a_step_is_written_as_sheet_film_and_record(
    trained: Trained, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tuple(tmp_path / name for name in ("a.png", "a.mp4", "a.json"))
    ShowRun(folder=trained.folder, step=12, out=out, servers=(server,)).run()
    record = json.loads(out[2].read_text())
    assert record["sha256"] == trained.digests[11]
    assert [clip["row"] for clip in record["clips"]] == [0, 1, 2, 3]
    assert all(clip["video"].startswith("clip") for clip in record["clips"])
    with av.open(str(out[0])) as sheet, av.open(str(out[1])) as film:
        (picture,) = (frame.to_ndarray(format="rgb24") for frame in sheet.decode(video=0))
        assert len(list(film.decode(video=0))) == 2
    assert np.ptp(picture) > 100
    said = capsys.readouterr().out
    stand_in = sum(clip["stood_in"] != "" for clip in record["clips"])
    told = f", of which {stand_in} stand in," if stand_in else ""
    where = f"data set {record['dataset']}, sha256 {trained.digests[11]}"
    assert said.startswith(f"step 12 of mae: 4 clips{told} of {where}\n")
    assert f"wrote {out[0]}" in said
    assert " more; " not in said
    ShowRun(folder=trained.folder, step=12, out=out[2:], servers=(server,), rows=(2, 0)).run()
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()[1:3]] == ["row 2", "row 0"]
    assert "\n2 more; --rows N N … draws others, and --out FILE.json records all 4\n" in said


def test_a_step_beyond_the_last_checkpoint_is_the_plans(trained: Trained, server: str) -> None:
    """And the run that goes on takes it: what follows from the plan is said to be that."""
    rebuilt = rebuild_step(trained.folder, 21, servers=(server,))
    assert not rebuilt.recorded
    assert rebuilt.batch.positions.tolist() == [80, 81, 82, 83]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 25}, r"--step is 25, wanted 1 to 24: so many steps the run in .* has"),
        ({"step": 0}, r"--step is 0, wanted 1 to 24"),
        ({"rank": 1}, r"--rank is 1, wanted 0 to 0: the run's processes"),
        ({"rows": (4,)}, r"--rows has 4, wanted 0 to 3"),
        ({"folder": Path("nowhere")}, r"--run nowhere has no recipe.json; wanted the folder of a run, its --out"),
        ({"root": Path("nowhere")}, r"root nowhere is not a folder"),
        ({"out": (Path("a.gif"),)}, r"--out is a.gif, wanted files ending in .png, .mp4, .json"),
    ],
)
def test_what_there_is_not_is_one_line(
    trained: Trained, server: str, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    options: dict[str, object] = {
        "folder": trained.folder, "step": 3, "out": (tmp_path / "a.png",), "servers": (server,), **change,
    }  # fmt: skip
    with pytest.raises(BadInput, match=says) as seen:
        ShowRun(**options).run()  # type: ignore[arg-type]
    assert "\n" not in str(seen.value)


def test_another_data_set_at_the_place_is_refused(trained: Trained, tmp_path: Path) -> None:
    for number in range(3):
        make_numbered_video(tmp_path / f"clip{number}.mp4", frames=90 + 30 * number, width_px=64, height_px=48)
    Index(root=tmp_path, jobs=1).run()
    with pytest.raises(BadInput, match=r"the samples are of another data set: dataset is v1-.* in the state and v1-"):
        rebuild_step(trained.folder, 3, root=tmp_path)
