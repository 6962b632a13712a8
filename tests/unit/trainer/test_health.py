"""What a run watches beside its loss: clips, features, waits by cause, energy and cost."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from framefeed.errors import BadInput
from tests.unit.trainer.small_run import make_batch
from tests.unit.trainer.test_clip_checks import frame_from_elsewhere, moving
from tests.unit.trainer.test_train_reports import record
from trainer_client.feed.batch import Batch
from trainer_client.training.session import SessionOptions
from trainer_client.training.tasks.feature_spread import feature_spread
from trainer_client.training.watch.clip_watch import ClipWatch, shares_of
from trainer_client.training.watch.collapse_alarm import CollapseAlarm
from trainer_client.training.watch.curves import Curves
from trainer_client.training.watch.energy import EnergyMeter, GpuCounter, RaplPackage
from trainer_client.training.watch.health import Health
from trainer_client.training.watch.run_cost import cost_of
from trainer_client.training.watch.train_log import TrainLog
from trainer_client.training.watch.train_metrics import TrainMetrics

CPU = torch.device("cpu")
_NVML = """
#include <string.h>
static int gpu;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    *handle = &gpu;
    return strcmp(uuid, "GPU-1234-ab") ? 6 : 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    *millijoules = 5500;
    return handle == &gpu ? 0 : 2;
}
"""


def spread_of(features: torch.Tensor) -> tuple[float, float]:
    told = feature_spread(features)
    return told["feature_std"].item(), told["feature_rank"].item()


def test_spread_is_1_for_features_everywhere_and_0_for_one() -> None:
    everywhere = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    assert spread_of(everywhere)[0] == pytest.approx(1, abs=0.02)
    assert spread_of(torch.ones(32, 64) + 1e-6 * everywhere[:32])[0] < 1e-4


def test_rank_is_the_number_of_directions_and_that_of_the_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(256, 3, generator=generator) @ torch.linalg.qr(torch.randn(64, 3, generator=generator))[0].T
    assert spread_of(few)[1] == pytest.approx(3, abs=0.1)
    z = torch.nn.functional.normalize(torch.randn(100, 16, generator=generator), dim=1)
    values = torch.linalg.eigvalsh(torch.cov(z.T, correction=0))
    assert spread_of(z)[1] == pytest.approx((values.sum() ** 2 / values.square().sum()).item(), rel=1e-4)
    assert math.isfinite(spread_of(torch.ones(1, 8))[1]), "one clip is no collapse of numbers"


def steps(std: float, rank: float, *, of: CollapseAlarm, count: int = 60, first: int = 1) -> list[str]:
    told = (of.add(step, {"feature_std": std, "feature_rank": rank}) for step in range(first, first + count))
    return [line for line in told if line]


def test_a_collapse_is_one_line_and_its_end_another() -> None:
    alarm = CollapseAlarm()
    assert steps(0.8, 20, of=alarm) == []
    (line,) = steps(0.05, 1.2, of=alarm, first=61, count=200)
    assert "features collapse: feature std" in line
    assert alarm.is_raised
    (line,) = steps(0.8, 20, of=alarm, first=261, count=200)
    assert "features are apart again" in line
    assert not alarm.is_raised


def test_features_that_never_were_apart_are_told_too_and_two_classes_have_one_direction() -> None:
    assert len(steps(0.005, 8, of=CollapseAlarm(), count=300)) == 1
    assert steps(0.9, 1, of=CollapseAlarm(), count=300) == []


def test_directions_that_are_lost_are_a_collapse_also_where_the_spread_stays() -> None:
    alarm = CollapseAlarm()
    assert steps(0.8, 20, of=alarm) == []
    assert len(steps(0.8, 2, of=alarm, first=61, count=200)) == 1


def test_a_task_that_tells_no_spread_and_a_new_model_raise_nothing() -> None:
    alarm = CollapseAlarm()
    assert [alarm.add(step, {"top1": 0.0}) for step in range(200)] == [""] * 200
    assert alarm.means == {}
    rising = [alarm.add(step, {"feature_std": 0.02 + step / 400, "feature_rank": 2 + step / 20}) for step in range(300)]
    assert not any(rising)


def made_batch(step: int, *, clips: int = 6, bad: tuple[int, ...] = ()) -> Batch:
    """Clips that move, in yuv420p; of those in `bad` a frame is from elsewhere."""
    batch = make_batch(step, clips=clips, frames=16, side_px=64)
    for row in range(clips):
        luma = moving()
        batch.pixels[row, :, :64] = frame_from_elsewhere(luma) if row in bad else luma
    return batch


def test_clips_of_a_step_are_checked_drawn_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = made_batch(3, bad=(1, 4))
    with caplog.at_level(logging.WARNING), ClipWatch(tmp_path, every=4) as watch:
        watch.see(batch, record(3))
        watch.see(batch, record(4))
    (look,) = watch.take_done()
    assert watch.take_done() == []
    assert (look.step, look.counts) == (4, {"cut": 2})
    assert shares_of([look]) == {"cut": pytest.approx(1 / 3), "flicker": 0, "duplicate": 0}
    files = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert files == ["step_000000004.json", "step_000000004.mp4", "step_000000004.png"]
    said = json.loads((tmp_path / "clips" / files[0]).read_text())
    for clip in said["clips"]:
        assert clip["sha256"] == hashlib.sha256(batch.pixels[clip["row"]].tobytes()).hexdigest()
        assert clip["found"] == (["cut"] if clip["row"] in (1, 4) else [])
    assert sorted(clip["row"] for clip in said["clips"]) == [0, 1, 2, 3, 4, 5]
    with av.open(str(tmp_path / "clips" / files[1])) as film:
        assert len(list(film.decode(video=0))) == 16
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert line.startswith("step 4: 2 of 6 clips that were looked at have a cut, as [0, 1) s of v")


@pytest.mark.slow
def test_the_same_steps_show_the_same_rows_and_old_looks_go(tmp_path: Path) -> None:
    shown = []
    for name in ("a", "b"):
        with ClipWatch(tmp_path / name, every=1) as watch:
            watch.see(made_batch(0, clips=40), record(7))
        shown.append((tmp_path / name / "clips" / "step_000000007.json").read_text())
    assert shown[0] == shown[1]
    assert len(json.loads(shown[0])["clips"]) == 16
    for step in range(10, 35):
        for ending in ("json", "png", "mp4"):
            (tmp_path / "a" / "clips" / f"step_{step:09d}.{ending}").touch()
    with ClipWatch(tmp_path / "a", every=1) as watch:
        watch.see(made_batch(0, clips=1), record(35))
    kept = sorted(path.stem for path in (tmp_path / "a" / "clips").glob("*.json"))
    assert kept == [f"step_{step:09d}" for step in range(16, 36)]
    assert len(list((tmp_path / "a" / "clips").iterdir())) == 60


def test_the_training_thread_never_waits_for_a_look(tmp_path: Path) -> None:
    """Steps come faster than they can be looked at: some are passed over, and counted."""
    batch = made_batch(0)
    with ClipWatch(tmp_path, every=1) as watch:
        for step in range(1, 200):
            watch.see(batch, record(step))
    looked = len(watch.take_done())
    assert looked >= 1
    assert watch.skipped == 199 - looked


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "clips").write_text("in the way")
    with caplog.at_level(logging.WARNING), ClipWatch(tmp_path, every=1) as watch:
        watch.see(made_batch(0), record(1))
    assert "clips of step 1: FileExistsError" in caplog.text
    assert len(watch.take_done()) == 1, "what was found counts all the same"


def test_waits_by_cause_and_findings_are_in_the_line_the_curves_and_the_metrics(tmp_path: Path) -> None:
    waited_s = {"decode": 1.0, "network": 0.0, "first_batch": 7.0}
    registry, out = CollectorRegistry(), io.StringIO()
    health = Health(tmp_path, sheet_every=1, metrics=TrainMetrics(registry), waited_s=lambda: dict(waited_s))
    parts = {"feature_std": 0.5, "feature_rank": 4.0}
    with (
        Curves(tmp_path, first_step=0, config={}) as curves,
        TrainLog(
            curves, total_steps=4, every=2, first_step=0, console=Console(file=out, width=200), beside=health
        ) as log,
    ):
        with health:
            health.see(made_batch(0, bad=(0,)), record(1))
        for step in range(1, 5):
            health.record(replace(record(step), parts=parts))
            log.record(record(step))
            waited_s |= {"decode": 1.0 + step * 0.25, "network": step * 0.06}
    first, second = out.getvalue().splitlines()
    assert first.endswith("waiting 25% (first_batch 175%, decode 31%)"), "the start is before the first step"
    assert second.endswith("waiting 25% (decode 12%, network 3%)")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("wait/decode")] == pytest.approx([0.3125, 0.125])
    assert [event.value for event in events.Scalars("health/cut")] == pytest.approx([1 / 6])
    assert [event.value for event in events.Scalars("health/collapsed")] == [0, 0]
    page = generate_latest(registry).decode()
    assert 'framefeed_trainer_clip_findings_total{finding="cut",rank="0"} 1.0' in page
    assert 'framefeed_trainer_checked_clips_total{rank="0"} 6.0' in page
    assert 'framefeed_trainer_feature_rank{rank="0"} 4.0' in page
    assert 'framefeed_trainer_features_collapsed{rank="0"} 0.0' in page


def rapl(folder: Path, *, now_uj: int) -> Path:
    package = folder / "intel-rapl:0"
    (package / "intel-rapl:0:0").mkdir(parents=True, exist_ok=True)
    (package / "max_energy_range_uj").write_text("10000000\n")
    (package / "energy_uj").write_text(f"{now_uj}\n")
    return package


def test_a_package_s_joules_are_counted_over_its_counter_s_end(tmp_path: Path) -> None:
    rapl(tmp_path, now_uj=4_000_000)
    now_s = [0.0]
    meter = EnergyMeter(device=CPU, packages=tmp_path, clock=lambda: now_s[0])
    for at_s, now_uj in ((31.0, 9_000_000), (62.0, 1_000_000)):
        now_s[0] = at_s
        rapl(tmp_path, now_uj=now_uj)
        meter.record(None)
    rapl(tmp_path, now_uj=1_500_000)
    meter.record(None)  # too soon
    assert meter.read() == {"cpu": pytest.approx(7.5)}
    assert meter.unread == {"gpu": "the run has no GPU"}


def test_a_gpu_s_counter_is_read_through_nvml_s_calls(tmp_path: Path) -> None:
    """The library itself needs a driver: this one has its three calls, and one GPU."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "nvml.c").write_text(_NVML)
    library = tmp_path / "nvml.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    assert GpuCounter("1234-ab", library=str(library)).read_j() == 5.5
    with pytest.raises(OSError, match="nvmlDeviceGetHandleByUUID says 6"):
        GpuCounter("another", library=str(library))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert "has no intel-rapl" in EnergyMeter(device=CPU, packages=tmp_path).unread["cpu"]
    assert "first process" in EnergyMeter(device=CPU, packages=None).unread["cpu"]
    (rapl(tmp_path, now_uj=1) / "energy_uj").write_text("much\n")
    assert "energy_uj: invalid literal" in EnergyMeter(device=CPU, packages=tmp_path).unread["cpu"]
    rapl(tmp_path, now_uj=1_000_000)
    meter = EnergyMeter(device=CPU, packages=tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.read() == {}
    assert "energy_uj" in meter.unread["cpu"]
    assert RaplPackage.all(tmp_path / "nowhere") == []
    with pytest.raises(OSError, match=r"nowhere\.so"):
        GpuCounter("0", library="nowhere.so")


def test_the_cost_is_hours_times_price(tmp_path: Path) -> None:
    meter = EnergyMeter(device=CPU, packages=None)
    said: Mapping[str, object] = cost_of(1800.0, gpus=8, price_per_gpu_hour=2.5, meter=meter)
    assert (said["gpu_hours"], said["cost"], said["energy_j"]) == (4.0, 10.0, {})
    assert cost_of(1800.0, gpus=8, price_per_gpu_hour=None, meter=meter)["cost"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sheet_every": -1}, "--sheet-every is -1, wanted a number of steps, or 0 for never"),
        ({"price_per_gpu_hour": -2.0}, "--price-per-gpu-hour is -2, wanted 0 or more"),
        ({"price_per_gpu_hour": math.nan}, "--price-per-gpu-hour is nan, wanted 0 or more"),
    ],
)
def test_options_that_mean_nothing_are_one_line(change: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        SessionOptions(out=Path("run"), **change)  # type: ignore[arg-type]
