"""Another machine with a kernel of its own, whose NFS client mounts what this one serves: QEMU, emulated.

It is slow (some 20 times) and correct. It knows no test; what it is to run is given as lines of a shell.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.integration.serving import PATIENCE_S

HOST = "10.0.2.2"
"""This machine, as the guest sees it."""
ADDRESS = "10.0.2.15"
"""The guest's own."""
_WANTED = ("virtio_pci", "virtio_blk", "virtio_net", "nfsv4")
_PREPARE = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module || echo "guest: no $module"; done
/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox ifconfig eth0 {address} netmask 255.255.255.0 up
/bin/busybox route add default gw {host}
/bin/busybox mount -t ext4 -o ro /dev/vda /root
/bin/busybox mount -t proc proc /root/proc
/bin/busybox mount -t sysfs sys /root/sys
/bin/busybox mount -t devtmpfs dev /root/dev
/bin/busybox mkdir -p /root/dev/shm
for folder in tmp run mnt dev/shm; do /bin/busybox mount -t tmpfs tmpfs /root/$folder; done
{lines}
while true; do /bin/busybox sleep 3600; done
"""


def guest_can_run() -> str:
    """Why not; empty if it can. It is asked for by name: beside other work its programs take minutes to start."""
    if os.environ.get("FRAMEFEED_GUEST") != "1":
        return "an emulated machine wants two CPUs for itself: FRAMEFEED_GUEST=1 starts it"
    missing = [tool for tool in ("qemu-system-x86_64", "busybox", "mke2fs") if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed"
    return "" if _kernel() else "no kernel for a guest (Debian: linux-image-cloud-amd64)"


class Guest:
    """Within `with` it runs `lines` with busybox, its disk mounted at /root; `ports` of it are reached at 127.0.0.1 by
    what `port_of` says.
    """

    def __init__(self, scratch: Path, disk: Path, *, lines: Sequence[str], ports: Sequence[int]) -> None:
        self._console = scratch / "console.log"
        self._ports = {port: _free_port() for port in ports}
        start = scratch / "initramfs.gz"
        _write_initramfs(start, scratch / "initramfs", lines)
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self._ports.items())
        kernel = _kernel()
        assert kernel is not None
        self._command = (
            "qemu-system-x86_64",
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"),
            *("-display", "none", "-no-reboot", "-serial", f"file:{self._console}", "-monitor", "none"),
            *("-kernel", str(kernel), "-initrd", str(start), "-append", "console=ttyS0 quiet panic=-1 mitigations=off"),
            *("-drive", f"file={disk},format=raw,if=virtio,readonly=on,cache=unsafe"),
            *("-netdev", f"user,id=net{forward}", "-device", "virtio-net-pci,netdev=net"),
        )

    def __enter__(self) -> Guest:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=PATIENCE_S)
        if kind is not None:
            print(self.said()[-6000:])

    def port_of(self, port: int) -> int:
        """The port of 127.0.0.1 that leads to one of the guest's."""
        return self._ports[port]

    def said(self) -> str:
        """What it wrote to its console so far."""
        assert self._process.poll() is None or self._console.exists(), "qemu ended"
        return self._console.read_text(errors="replace") if self._console.exists() else ""


def _kernel() -> Path | None:
    """The newest whose modules are there as well."""
    kernels = [path for path in Path("/boot").glob("vmlinuz-*-cloud-amd64") if _modules_of(path).is_dir()]
    return max(kernels, key=lambda path: path.stat().st_mtime, default=None)


def _modules_of(kernel: Path) -> Path:
    return Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _write_initramfs(path: Path, tree: Path, lines: Sequence[str]) -> None:
    kernel = _kernel()
    assert kernel is not None
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "bin/busybox")
    modules = _in_order(_modules_of(kernel))
    for module in modules:
        shutil.copy(module, tree / "modules" / module.name)
    init = tree / "init"
    names = " ".join(module.name for module in modules)
    init.write_text(_PREPARE.format(modules=names, address=ADDRESS, host=HOST, lines="\n".join(lines)))
    init.chmod(init.stat().st_mode | stat.S_IXUSR)
    listing = "\n".join(str(found.relative_to(tree)) for found in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=listing.encode(), capture_output=True, check=True
    )
    path.write_bytes(gzip.compress(packed.stdout, compresslevel=1))


def _in_order(folder: Path) -> list[Path]:
    """The modules that are wanted and all that they need, each after those."""
    needs: dict[str, list[str]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    wanted = [path for name in _WANTED for path in needs if Path(path).name == f"{name}.ko"]
    ordered: dict[str, None] = {}

    def add(module: str) -> None:
        for other in needs[module]:
            add(other)
        ordered[module] = None

    for module in wanted:
        add(module)
    return [folder / module for module in ordered]
