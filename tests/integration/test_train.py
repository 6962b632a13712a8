"""Training over real servers: what is killed, or stopped and resumed, changes no loss; signals end a run well."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from decode_server.indexing.index import Index
from framefeed.cli.command import main
from framefeed.manifest import read_manifest
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.weights.checkpoint_folder import checkpoint_in, read_whole
from framefeed_models.weights.saved_model import load_model
from tests.integration.serving import PATIENCE_S, SERVE, Server, parse_metrics, wait_until
from tests.videos import make_numbered_video
from trainer_client.training.export import Export

TRAIN = ("-c", "from framefeed.cli.command import main; raise SystemExit(main())", "train", "mae")
SERVER = ("--workers", "1", "--threads", "1", "--buffer-pool-mib", "16")
SMALL = (
    *("--preset", "tiny", "--frames", "2", "--size-px", "32", "--stride-frames", "1", "--window-s", "0.1"),
    *("--batch-clips", "2", "--mask-ratio", "0.5", "--lr", "1e-3", "--steps", "100000", "--prefetch-batches", "2"),
    *("--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1", "--metrics-port", "0"),
)


F_SETPIPE_SZ = 1031


class Trainer:
    """A `framefeed train mae` process over some servers; within `with`, and gone after it."""

    def __init__(self, root: Path, out: Path, *servers: Server | str, options: tuple[str, ...] = ()) -> None:
        self.out = out
        (out / "run.json").unlink(missing_ok=True)
        urls = [server if isinstance(server, str) else server.endpoint for server in servers]
        command = [sys.executable, *TRAIN, str(root), "--out", str(out), *SMALL, *options, "--servers", *urls]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)

    def wait_for_step(self, step: int) -> int:
        """Wait until the run has done so many steps, and return how many it has done."""
        done = [0]

        def reached() -> bool:
            assert self.process.poll() is None, self.process.communicate()[0]
            done[0] = int(self.metrics().get('framefeed_trainer_step{rank="0"}', 0))
            return done[0] >= step

        wait_until(f"step {step}", reached, patience_s=60)
        return done[0]

    def metrics(self) -> dict[str, float]:
        """All samples of its /metrics; none while it does not answer."""
        if not (self.out / "run.json").exists():
            return {}
        url = json.loads((self.out / "run.json").read_text())["metrics_url"]
        try:
            return parse_metrics(urllib.request.urlopen(url, timeout=PATIENCE_S).read().decode())
        except urllib.error.URLError:
            return {}

    def stop(self, number: signal.Signals) -> tuple[int, int]:
        """(exit code, steps done) after a signal; the newest checkpoint is of the last step."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[0]
        summary = json.loads((self.out / "summary.json").read_text())
        newest = checkpoint_in(self.out)
        assert newest is not None, said
        assert newest.name == f"step_{summary['last_step']:09d}", said
        assert summary["ending"] == "stopped by a signal"
        assert f"saved as {newest}; the same command with --resume goes on" in " ".join(said.split())
        return self.process.returncode, summary["last_step"]


def files_of(out: Path) -> dict[str, bytes]:
    """The files of a run by name, with what is in them."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def losses(out: Path) -> list[float]:
    """The loss of each step, in float32 as TensorBoard keeps it, of runs that end where the next begins."""
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    scalars = events.Scalars("train/loss")
    assert [event.step for event in scalars] == list(range(1, len(scalars) + 1))
    return [event.value for event in scalars]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        make_numbered_video(folder / f"clip{number}.mp4", frames=90 + 30 * number, width_px=96, height_px=64)
    Index(root=folder, jobs=1).run()
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("logs"), str(root), *SERVER, program=SERVE) as one:
        yield one


@pytest.mark.slow
def test_neither_a_killed_server_nor_a_stop_and_resume_changes_a_loss(
    root: Path, server: Server, tmp_path: Path
) -> None:
    out = tmp_path / "disturbed"
    with (
        Server(tmp_path, str(root), *SERVER, program=SERVE) as doomed,
        Trainer(root, out, doomed, server) as run,
    ):
        killed_at = run.wait_for_step(3)
        doomed.signal(signal.SIGKILL)
        run.wait_for_step(killed_at + 20)
        assert run.stop(signal.SIGTERM)[0] == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["servers"][doomed.endpoint] == "offline"
    assert summary["requests"][f"{doomed.endpoint} ok"] > 0
    with Trainer(root, out, server, options=("--resume",)) as run:
        run.wait_for_step(summary["last_step"] + 20)
        code, steps = run.stop(signal.SIGINT)
        assert code == 130
    disturbed = losses(out)
    assert len(disturbed) == steps

    with Trainer(root, tmp_path / "undisturbed", server) as run:
        run.wait_for_step(steps)
        assert run.stop(signal.SIGTERM)[0] == 0
    assert losses(tmp_path / "undisturbed")[:steps] == disturbed


@pytest.mark.slow
def test_a_finished_run_leaves_its_sheet_summary_and_checkpoint_and_refuses_another_configuration(
    root: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = ("--steps", "4", "--checkpoint-every", "2", "--keep-checkpoints", "2")
    with Trainer(root, tmp_path, server, options=ending) as run:
        said = run.process.communicate(timeout=60)[0]
        assert run.process.returncode == 0, said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("step ")] == ["1/4", "2/4", "3/4", "4/4"]
    names = {path.name for path in tmp_path.iterdir()}
    kept = {"step_000000002", "step_000000004"}
    assert names == {*kept, "contact_sheet.png", "recipe.json", "run.json", "summary.json", "tensorboard"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["ending"], summary["steps"], summary["clips"]) == ("all steps done", 4, 8)
    assert summary["conserved"]
    assert summary["read_bytes_per_clip"] > 0
    options = (
        "--out",
        str(tmp_path),
        *SMALL,
        *ending,
        "--servers",
        server.endpoint,
        "--resume",
        "--mask-ratio",
        "0.75",
    )
    assert main(["train", "mae", str(root), *options]) == 2
    said = capsys.readouterr().err
    assert "is of another run: mask_ratio was 0.5 and is 0.75; use the same or another --out" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_real_runs_weights_are_exported(root: Path, server: Server, tmp_path: Path) -> None:
    """The last step's checkpoint, whole, into a folder that gives the same model again."""
    options = ("--servers", server.endpoint, "--out", str(tmp_path / "run"), *SMALL, "--steps", "3")
    assert main(["train", "mae", str(root), *options]) == 0
    Export(checkpoint=tmp_path / "run", out=tmp_path / "out").run()
    model, config = load_model(tmp_path / "out")
    trained = read_whole(tmp_path / "run" / "step_000000003", prefix="model.")
    assert isinstance(config, VideoMAEConfig)
    assert (config.grid.frames, config.grid.width_px) == (2, 32)
    assert model.state_dict().keys() == trained.keys()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_a_run_is_lengthened_and_one_that_is_finished_or_of_another_data_set_says_so(
    root: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(videos: Path, steps: int, *more: str) -> tuple[int, str]:
        fixed = ("--servers", server.endpoint, "--out", str(tmp_path / "run"), *SMALL, "--steps", str(steps))
        code = main(["train", "mae", str(videos), *fixed, *more])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    assert train(root, 2)[0] == 0
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    code, said = train(root, 2, "--resume")
    assert code == 0
    assert "is finished: its 2 steps are done; more --steps lengthen it" in said
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary
    other = tmp_path / "other"
    for number in range(3):
        make_numbered_video(other / f"clip{number}.mp4", frames=90 + 30 * number, width_px=64, height_px=64)
    Index(root=other, jobs=1).run()
    before = files_of(tmp_path / "run")
    code, said = train(other, 4, "--resume")
    assert code == 2
    assert files_of(tmp_path / "run") == before, "what is refused changes nothing"
    assert f"the data set was '{read_manifest(root).identity}' and is '{read_manifest(other).identity}'" in said
    assert f"root was {root} and is {other}" in said
    code, said = train(root, 4, "--resume")
    assert code == 0, said
    assert "steps was 2 and is 4" in said
    assert [path.name for path in sorted((tmp_path / "run").glob("step_*"))] == ["step_000000002", "step_000000004"]
    before = files_of(tmp_path / "run")
    code, said = train(root, 3, "--resume")
    assert code == 2
    assert files_of(tmp_path / "run") == before
    assert "--steps is 3 and" in said
    assert "is after step 4; wanted at least so many" in said


@pytest.mark.slow
def test_a_stop_ends_the_wait_for_servers_that_are_not_there(root: Path, server: Server, tmp_path: Path) -> None:
    with Server(tmp_path, str(root), *SERVER, program=SERVE) as gone:
        pass
    with Trainer(root, tmp_path / "run", gone) as run:
        up = f'framefeed_client_server_up{{rank="0",server="{gone.endpoint}"}}'
        wait_until("the feed", lambda: run.metrics().get(up) == 0, patience_s=60)
        run.process.send_signal(signal.SIGTERM)
        said = run.process.communicate(timeout=60)[0]
    assert run.process.returncode == 0, said
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_begins_before_its_servers_finds_them_in_their_folder(root: Path, tmp_path: Path) -> None:
    registry, options = tmp_path / "servers", ("--look-every-s", "0.2")
    with (
        Trainer(root, tmp_path / "out", f"registry://{registry}", options=options) as trainer,
        Server(tmp_path, str(root), *SERVER, "--registry", str(registry), program=SERVE) as first,
    ):
        trainer.wait_for_step(3)
        with Server(tmp_path, str(root), *SERVER, "--registry", str(registry), program=SERVE):
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
            assert len(list(registry.glob("*.server.json"))) == 1, "who drains takes its entry away"
            trainer.wait_for_step(trainer.wait_for_step(1) + 20)
            _, steps = trainer.stop(signal.SIGTERM)
        assert len(losses(tmp_path / "out")) == steps


@pytest.mark.slow
def test_a_log_that_nobody_reads_stops_no_training(root: Path, server: Server, tmp_path: Path) -> None:
    """A pipe of 4 KiB whose reader stands: lines are left out, and counted on stderr, and all steps are taken."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    options = ("--servers", server.endpoint, "--out", str(tmp_path / "run"), *SMALL, "--steps", "10")
    command = [sys.executable, *TRAIN, str(root), *options]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(writer)
    os.close(reader)
    assert done.returncode == 0, done.stderr
    assert "framefeed: stdout is not read: lines are left out until it is" in done.stderr
    assert "lines of log were lost: stdout did not take them" in done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["last_step"] == 10
