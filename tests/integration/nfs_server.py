"""An NFS 4 server of this machine: nfs-ganesha in a process of its own, to be stopped and started again.

It knows the folder that it exports and none of its clients.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from tests.integration.serving import PATIENCE_S, wait_until

PSEUDO = "/v"
"""The path by which clients mount it."""
_CONFIG = """
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSV4 {{ RecoveryBackend = fs; RecoveryRoot = {recovery}; Grace_Period = 5; Lease_Lifetime = 30;
  Only_Numeric_Owners = true; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = {folder}; Pseudo = {pseudo}; Access_Type = RO; Squash = No_Root_Squash; SecType = sys;
  Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} }}
"""


def nfs_can_be_served() -> str:
    """Why not; empty if it can."""
    if os.geteuid() != 0:
        return "nfs-ganesha needs root to open files by handle"
    missing = [tool for tool in ("ganesha.nfsd", "unshare") if shutil.which(tool) is None]
    return f"{missing[0]} is not installed" if missing else ""


class NfsServer:
    """Within `with` it serves `folder` read-only at `port` of every address."""

    def __init__(self, scratch: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._log, self._pid_file, self._config = (scratch / f"ganesha.{end}" for end in ("log", "pid", "conf"))
        recovery = scratch / "recovery"
        recovery.mkdir()
        text = _CONFIG.format(port=self.port, folder=folder, pseudo=PSEUDO, recovery=recovery)
        self._config.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NfsServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        if kind is not None:
            print(self._log.read_text()[-3000:])

    def start(self) -> None:
        """Start it, once more if it was killed; it listens then."""
        options = ("-F", "-f", str(self._config), "-L", str(self._log), "-p", str(self._pid_file), "-N", "NIV_EVENT")
        command = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "ganesha.nfsd", *options)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until("nfs-ganesha listens", self._listens, patience_s=2 * PATIENCE_S)

    def kill(self) -> None:
        """End it at once, as a machine that lost its power. Idempotent."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate(timeout=PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        """From now on it answers nothing, and its connections stay."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0
