"""A real Docker engine and this tree's images for tests: takes the engine that is there, or starts one as root.

It knows nothing of Compose. What it builds is kept under KEPT, so that a second run builds what changed only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from deploy.images.build import Build, Target, make_wheels
from deploy.images.debian_base import Base
from tests.integration.serving import wait_until

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("FRAMEFEED_ENGINE_FOLDER", "/var/tmp/framefeed-engine"))
BASE = "framefeed-base:bookworm"
DECODE, TRAIN, PROMETHEUS = "framefeed-decode:test", "framefeed-train:test", "framefeed-prometheus:test"
REQUIRED = "FRAMEFEED_ENGINE"  # "required": a missing engine is a failure and no skip
_START_S = 60.0


@contextmanager
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of an engine. DOCKER_HOST leads to it meanwhile, for commands. Skips, or fails in CI, without one."""
    with contextlib.ExitStack() as stack:
        if not _answers(docker.from_env):
            stack.enter_context(_own_engine())
        client = stack.enter_context(contextlib.closing(docker.from_env(timeout=180)))
        yield client


def _answers(connect: Any) -> bool:
    try:
        with contextlib.closing(connect()) as client:
            return bool(client.ping())
    except docker.errors.DockerException:
        return False


@contextmanager
def _own_engine() -> Iterator[None]:
    missing = [name for name in ("dockerd", "containerd", "runc", "iptables") if not shutil.which(name)]
    if os.geteuid() or missing:
        why = "no Docker engine answers, and none can be started: "
        give_up(why + (f"{', '.join(missing)} not installed" if missing else "this is not root"))
    scratch = Path(tempfile.mkdtemp(prefix="framefeed-dockerd-"))
    url = f"unix://{scratch / 'docker.sock'}"
    folders = ("--data-root", str(KEPT / "engine"), "--exec-root", str(scratch / "exec"))
    log = scratch / "log"
    before = os.environ.get("DOCKER_HOST")
    with log.open("wb") as out:
        # It ends with this process, however that ends: else it would keep its folder from the next one.
        command = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "dockerd",
            *folders,
            "--host",
            url,
            "--pidfile",
            str(scratch / "pid"),
        ]
        daemon = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        os.environ["DOCKER_HOST"] = url
        wait_until(
            "the engine answers, or has ended",
            lambda: daemon.poll() is not None or _answers(docker.from_env),
            patience_s=_START_S,
        )
        if daemon.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            give_up(f"dockerd does not start here: {' '.join(last)[-400:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)
        os.environ.pop("DOCKER_HOST", None)
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        shutil.rmtree(scratch, ignore_errors=True)


def give_up(why: str) -> None:
    """What a test does that has no engine: fails in CI, where there has to be one, and is skipped elsewhere."""
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(why)
    pytest.skip(why)


def build_images(client: docker.DockerClient) -> None:
    """Images of this tree, on a base of Debian's packages, and one of Debian's Prometheus."""
    if not client.images.list(BASE):
        if not shutil.which("debootstrap"):
            give_up("debootstrap is not installed, and makes the images' base")
        Base(tag=BASE).run()
    tags: dict[Target, str] = {"decode": DECODE, "train": TRAIN}
    for target, tag in tags.items():
        wheels = make_wheels(target, KEPT / f"wheels-{target}")
        Build(target=target, base=BASE, tag=tag, wheels=wheels).run()
    _build_prometheus(client)
    client.images.prune(filters={"dangling": True, "until": "24h"})  # newer ones are what a next build begins with


def _build_prometheus(client: docker.DockerClient) -> None:
    program = shutil.which("prometheus")
    if program is None:
        give_up("Debian's package prometheus is not installed")
        return
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(program, context)
        (Path(context) / "Dockerfile").write_text(
            f"FROM {BASE}\n"
            "COPY prometheus /bin/prometheus\n"
            "RUN mkdir /prometheus && chown 65534:65534 /prometheus\n"
            'ENTRYPOINT ["/bin/prometheus"]\n'
        )
        client.images.build(path=context, tag=PROMETHEUS, rm=True)
