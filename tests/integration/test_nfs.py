"""NFS for real: nfs-ganesha serves, the kernel of a virtual machine mounts with our options and decodes from it, and a
trainer here gets the bytes of the local disk, whatever happens to the server meanwhile.

All reads of the guest come from the server: its page cache is emptied again and again.
"""

from __future__ import annotations

import select
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from framefeed.errors import WIRE_ERRORS, Retryable
from framefeed.request import ClipRequest
from framefeed.wire import ClipReply, DecodeCall, ErrorReply
from tests.chaos.batch_log import line_of
from tests.chaos.fleet import SERVER, make_videos, plan
from tests.integration.fiu_worker import FOLDER, libfiu_can_run
from tests.integration.guest import ADDRESS, HOST, Guest, guest_can_run
from tests.integration.guest_image import ROOT, make_disk
from tests.integration.nfs_server import PSEUDO, NfsServer, nfs_can_be_served
from tests.integration.serving import SERVE, Client, Server, parse_metrics, request, wait_until
from tests.videos import make_numbered_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BOOT_S, OUTAGE_S, ANSWER_S = 300.0, 10.0, 90.0  # emulated, and on a machine that has other work
FIU_SERVE = ("-m", "tests.integration.fake_server", "tests.integration.fiu_worker")
PORTS = {"hard": (5555, 9555), "softerr": (5655, 9655)}
SOFT = "softerr,timeo=10,retrans=1"
_START = """
cd /root
mount={mount}
/bin/busybox mkdir -p /root/mnt/$mount
/bin/busybox mount -t nfs4 -o {options} {host}:{pseudo} /root/mnt/$mount || echo "guest: no mount $mount"
/bin/busybox grep "/$mount nfs4 " /proc/mounts
while true; do
  /bin/busybox chroot /root {python} -m framefeed.cli serve /mnt/$mount --bind tcp://0.0.0.0:{port} --public \
    --insecure --metrics-host 0.0.0.0 --metrics-port {metrics_port} {server}
done &
page=http://127.0.0.1:{metrics_port}/readyz
until /bin/busybox wget -q -O /dev/null $page 2>/dev/null; do /bin/busybox sleep 1; done
"""
_FORGET = """
while true; do echo 1 > /proc/sys/vm/drop_caches; /bin/busybox sleep 1; done &
"""


def compose_options() -> str:
    """What deploy/compose.nfs.yaml mounts with, behind the address."""
    told = yaml.safe_load((ROOT / "deploy/compose.nfs.yaml").read_text())
    options: str = told["volumes"]["videos"]["driver_opts"]["o"]
    return options.partition(",")[2]


@dataclass(frozen=True)
class Far:
    """A decode server in the guest, at `endpoint`; `metrics` are those of its page."""

    endpoint: str
    page: str

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.page}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (OSError, HTTPException):
            return False

    def faults(self) -> dict[str, float]:
        """Storage faults by kind."""
        with urllib.request.urlopen(f"{self.page}/metrics", timeout=ANSWER_S) as answer:
            values = parse_metrics(answer.read().decode())
        name = 'framefeed_server_storage_faults_total{kind="'
        return {key.removeprefix(name).rstrip('"}'): value for key, value in values.items() if key.startswith(name)}


@dataclass(frozen=True)
class Site:
    """Videos, the server that exports them, and the guest's decode servers by the kind of their mount."""

    root: Path
    nfs: NfsServer
    guest: Guest
    far: dict[str, Far]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if why := nfs_can_be_served() or guest_can_run():
        pytest.skip(why)
    scratch = tmp_path_factory.mktemp("site")
    (scratch / "videos").mkdir()
    root = make_videos(scratch / "videos")
    disk = make_disk(scratch / "disk.img", scratch)
    with NfsServer(scratch, root) as nfs:
        to_server = f"addr={HOST},clientaddr={ADDRESS},port={nfs.port},proto=tcp"
        options = {"hard": compose_options(), "softerr": compose_options().replace("hard", SOFT)}
        lines = [_environment()]
        for mount, (port, metrics_port) in PORTS.items():
            lines.append(
                _START.format(
                    mount=mount,
                    options=f"{options[mount]},{to_server}",
                    host=HOST,
                    pseudo=PSEUDO,
                    python=sys.executable,
                    port=port,
                    metrics_port=metrics_port,
                    server=" ".join(SERVER),
                )
            )
        every_port = [port for ports in PORTS.values() for port in ports]
        with Guest(scratch, disk, lines=[*lines, _FORGET], ports=every_port) as guest:
            far = {mount: _far(guest, *ports) for mount, ports in PORTS.items()}
            for mount, server in far.items():
                wait_until(f"the guest's server on {mount}", server.ready, patience_s=BOOT_S)
            yield Site(root=root, nfs=nfs, guest=guest, far=far)


def _environment() -> str:
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    return (
        f"export PYTHONHOME={sys.base_prefix} PYTHONPATH={ROOT}:{site_packages} PYTHONDONTWRITEBYTECODE=1 "
        "PATH=/bin:/usr/bin LC_ALL=C.UTF-8 OMP_NUM_THREADS=1"
    )


def _far(guest: Guest, port: int, metrics_port: int) -> Far:
    return Far(f"tcp://127.0.0.1:{guest.port_of(port)}", f"http://127.0.0.1:{guest.port_of(metrics_port)}")


def run_of(root: Path, folder: Path, endpoint: str, **changes: Any) -> Any:
    """A trainer's feed that has the patience that an emulated machine needs."""
    patience = {"attempt_s": 30.0, "stall_s": ANSWER_S, "batch_clips": 4, "prefetch_batches": 1, "hedge_share": 0.0}
    return plan(root, folder, [endpoint], **{**patience, **changes}).open()


def local(site: Site, folder: Path, steps: int) -> list[Any]:
    """What the first steps are when they are read from the local disk."""
    with (
        Server(folder, str(site.root), *SERVER, program=SERVE) as near,
        run_of(site.root, folder, near.endpoint, steps=steps) as run,
    ):
        return [line_of(batch).identity for batch in run]


def test_a_trainer_gets_over_nfs_what_lies_on_the_disk(site: Site, tmp_path: Path) -> None:
    mounted = [line for line in site.guest.said().splitlines() if " nfs4 " in line]
    for word in ("/hard nfs4 ro,noatime,nodiratime,vers=4.2", ",hard,", "nconnect=8"):
        assert word in mounted[0]
    assert "softerr" in mounted[1]
    with run_of(site.root, tmp_path, site.far["hard"].endpoint, steps=6) as run:
        seen = [line_of(batch).identity for batch in run]
        assert run.stats.conserved
    assert seen == local(site, tmp_path, 6)


def test_with_hard_an_outage_of_ten_seconds_is_waited_out(site: Site, tmp_path: Path) -> None:
    """The server is killed, as by a machine that lost its power, and comes back with what it had."""
    with run_of(site.root, tmp_path, site.far["hard"].endpoint, steps=14) as run:
        seen = [line_of(next(run)).identity for _ in range(3)]
        site.nfs.kill()
        select.select([], [], [], OUTAGE_S)
        site.nfs.start()
        seen += [line_of(batch).identity for batch in run]
        assert run.stats.conserved
    assert seen == local(site, tmp_path, 14)


def ask(endpoint: str, wanted: ClipRequest) -> bytes | str:
    """The clip's bytes, or the code of the error."""
    with Client(endpoint) as client:
        client.send(DecodeCall(attempt=1, deadline_s=ANSWER_S, request=wanted))
        reply, pixels = client.receive(patience_s=ANSWER_S)
    assert isinstance(reply, ClipReply | ErrorReply)
    return reply.code if isinstance(reply, ErrorReply) else pixels


def clips(root: Path, folder: Path, wanted: list[ClipRequest]) -> list[bytes | str]:
    """What a server of the local disk gives."""
    with Server(folder, str(root), *SERVER, program=SERVE) as near:
        return [ask(near.endpoint, one) for one in wanted]


def test_with_softerr_an_outage_is_for_another_server(site: Site, tmp_path: Path) -> None:
    wanted = request("clip0")
    site.nfs.stop()
    try:
        code = ask(site.far["softerr"].endpoint, wanted)
    finally:
        site.nfs.go_on()
    assert isinstance(code, str), "a clip although its storage was away"
    assert issubclass(WIRE_ERRORS[code], Retryable), code
    faults = site.far["softerr"].faults()
    assert faults["timeout"] + faults["io"] + faults["hung"] > 0, faults
    (right,) = clips(site.root, tmp_path, [wanted])
    wait_until("the clip again", lambda: ask(site.far["softerr"].endpoint, wanted) == right, patience_s=ANSWER_S)


def refused(site: Site, wanted: ClipRequest, right: bytes | str) -> bool:
    """Whether the clip is. Its right frames, which are in the memory of the guest's kernel, may come before."""
    seen = ask(site.far["hard"].endpoint, wanted)
    assert seen in (right, "not_here", "storage_fault"), "a wrong frame" if isinstance(seen, bytes) else seen
    return seen != right


def test_a_chunk_that_is_replaced_under_it_is_never_a_wrong_frame(site: Site, tmp_path: Path) -> None:
    """By another file of the same name while the server is down, so that handles from before are stale."""
    kept, wanted = tmp_path / "kept.mp4", [request("clip1"), request("clip2")]
    right = clips(site.root, tmp_path, wanted)
    assert [ask(site.far["hard"].endpoint, one) for one in wanted] == right
    site.nfs.kill()
    shutil.copy2(site.root / "clip1.mp4", kept)
    make_numbered_video(site.root / "other.mp4", frames=200, width_px=96, height_px=64)
    (site.root / "other.mp4").rename(site.root / "clip1.mp4")
    site.nfs.start()
    try:
        wait_until("its end", lambda: refused(site, wanted[0], right[0]), patience_s=ANSWER_S)
        assert ask(site.far["hard"].endpoint, wanted[1]) == right[1], "of a file that was not"
        faults = site.far["hard"].faults()
        assert faults["stale"] + faults["hung"] > 0, "ESTALE, or a kernel that cannot take up again what it had open"
    finally:
        shutil.copy2(kept, site.root / "put_back.mp4")
        (site.root / "put_back.mp4").rename(site.root / "clip1.mp4")


def test_with_a_tenth_of_all_reads_failing_a_run_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libfiu makes preadv fail with EIO, in a server that is not changed for it."""
    if why := libfiu_can_run():
        pytest.skip(why)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / "videos").mkdir()
    root = make_videos(tmp_path / "videos")
    logs = []
    for program in (SERVE, FIU_SERVE):
        folder = tmp_path / str(len(logs))
        folder.mkdir()
        with Server(folder, str(root), *SERVER, program=program) as server:
            with run_of(root, folder, server.endpoint, steps=40) as run:
                logs.append([line_of(batch).identity for batch in run])
                assert run.stats.conserved
            failed = server.metrics()['framefeed_server_storage_faults_total{kind="io"}']
            assert (failed > 5) == (program is FIU_SERVE), failed
    assert logs[0] == logs[1]
