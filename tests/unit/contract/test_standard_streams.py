"""Standard streams: closed ones are opened, and one whose reader stands keeps nobody waiting and is told of later."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

F_SETPIPE_SZ = 1031
LOG = """
import logging, sys
from framefeed.cli.log_lines import log_to_stderr
log_to_stderr()
for number in range(2000):
    logging.info("line %d %s", number, "x" * 80)
print("logged", flush=True)
sys.stdin.readline()
logging.info("the last")
"""
PRINT = """
import sys
from framefeed.cli.standard_streams import log_to_stdout
log_to_stdout()
for number in range(2000):
    print("line", number, "x" * 80)
print("printed", file=sys.stderr, flush=True)
sys.stdin.readline()
print("the last")
"""
FRAMEFEED = [sys.executable, "-c", "import sys; from framefeed.cli.command import main; sys.exit(main())"]
STREAMS = """
import os, sys
from framefeed.cli.standard_streams import open_standard_streams
open_standard_streams()
print("printed")
print("said", file=sys.stderr)
opened = os.open("/dev/null", os.O_RDONLY)
assert opened > 2, opened
assert sys.stdin.read() == ""
os.write(int(sys.argv[1]), b"whole")
"""


def test_what_nobody_reads_is_dropped_counted_and_said_later() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        [sys.executable, "-c", LOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"logged\n", "it ends though nobody reads"
        flags = fcntl.fcntl(writer, fcntl.F_GETFL)
        assert not flags & os.O_NONBLOCK, "whoever shares the pipe sees no change"
        os.close(writer)
        early = os.read(reader, 1 << 16)
        process.stdin.write(b"\n")
        process.stdin.close()
        late = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
        assert process.wait(30) == 0
    os.close(reader)
    kept = early.count(b"\n")
    assert early.splitlines()[0].endswith(b"line 0 " + b"x" * 80)
    assert 0 < kept < 2000
    lost, last = late.decode().splitlines()
    assert lost == f"framefeed[{process.pid}]: {2000 - kept} lines of log were lost: stderr did not take them"
    assert last.endswith("the last")


def _printing(writer: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PRINT]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE)


def test_a_printed_log_that_nobody_reads_keeps_nobody_waiting_and_is_told_of_at_once_and_later() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    with _printing(writer) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"framefeed: stdout is not read: lines are left out until it is\n"
        assert process.stderr.readline() == b"printed\n", "it goes on though nobody reads"
        os.close(writer)
        early = os.read(reader, 1 << 16)
        process.stdin.write(b"\n")
        process.stdin.close()
        late = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    os.close(reader)
    kept = early.count(b"\n")
    assert 0 < kept < 2000
    lost, last = late.decode().splitlines()
    assert lost == f"framefeed[{process.pid}]: {2000 - kept} lines of log were lost: stdout did not take them"
    assert last == "the last"


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_printed_log_that_nobody_reads_to_the_end_is_told_of_on_stderr(is_gone: bool) -> None:
    reader, writer = os.pipe()
    if is_gone:
        os.close(reader)
    with _printing(writer) as process:
        said = process.communicate(b"\n", timeout=30)[1].decode().splitlines()
        assert process.returncode == 0
    os.close(writer)
    if not is_gone:
        os.close(reader)
    assert said[:2] == ["framefeed: stdout is not read: lines are left out until it is", "printed"]
    assert said[2].endswith(" lines of log were lost: stdout did not take them")
    assert len(said) == 3


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1", "0 1 2"])
def test_closed_streams_are_opened_before_their_numbers_are_another_s(tmp_path: Path, closed: str) -> None:
    shut = " ".join(f"{fd}<&-" for fd in closed.split())
    script = f'exec {sys.executable} -c "$0" 9 9>"$1" {shut} </dev/null' if "0" not in closed else None
    script = script or f'exec {sys.executable} -c "$0" 9 9>"$1" {shut}'
    done = subprocess.run(
        ["/bin/bash", "-c", script, STREAMS, str(tmp_path / "done")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text() == "whole"
    assert done.stdout == ("" if "1" in closed else "printed\n")
    assert done.stderr == ("" if "2" in closed else "said\n")


@pytest.mark.parametrize("args", [["--help"], ["serve", "--help"], ["--version"]])
def test_a_verb_whose_output_cannot_be_written_says_so_in_a_line(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*FRAMEFEED, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "framefeed: stdout cannot be written (No space left on device)\n"


def test_too_few_open_files_are_one_line() -> None:
    program = (
        "import os, sys; from framefeed.cli import verbs\n"
        "class Verb:\n"
        "    def run(self):\n"
        "        while True: os.dup(0)\n"
        "verbs._read = lambda args: Verb()\n"
        "sys.exit(verbs.run_verb([]))"
    )
    command = f'ulimit -n 40; exec {sys.executable} -c "$0"'
    done = subprocess.run(
        ["/bin/bash", "-c", command, program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "framefeed: this process may have 40 open files (ulimit -n) and wants more\n"


@pytest.mark.parametrize(
    ("verb", "module"),
    [
        ("chunk", "framefeed.cli.standard_streams"),
        ("chunk", "framefeed.cli.verbs"),
        ("chunk", "decode_server.chunking.chunk"),
        ("chunk", "av"),
        ("index", "decode_server.indexing.index"),
        ("show", "decode_server.show.show"),
        ("export", "trainer_client.training.export"),
    ],
)
def test_an_interrupt_amid_imports_is_one_line(verb: str, module: str) -> None:
    program = (
        "import os, signal, sys\n"
        "from framefeed.cli import command\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"sys.argv = ['framefeed', {verb!r}, 'nowhere']\n"
        "sys.exit(command.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (130, "framefeed: interrupted\n")


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    program = (
        "import os, signal\n"
        "from framefeed.cli.interrupts import end_on_interrupt, raised\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "end_on_interrupt()\n"
        "with raised():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_that_are_started_while_interrupts_are_held_take_none_until_they_let_them_in() -> None:
    child = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('lives', flush=True); "
    lets_in = f"{child}from framefeed.cli import interrupts; interrupts.let_in()"
    program = (
        "import subprocess, sys, signal, os\n"
        "from framefeed.cli import interrupts\n"
        "with interrupts.held():\n"
        f"    one = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"    other = subprocess.Popen([sys.executable, '-c', {lets_in!r}])\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    codes = one.wait(20), other.wait(20)\n"
        "    print(codes, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("lives") == 2
    assert done.stdout.splitlines()[-1] == "(0, 130)"
    assert done.stderr.count("framefeed: interrupted\n") == 1
    assert done.returncode == -signal.SIGINT or "KeyboardInterrupt" in done.stderr, "what came is taken afterwards"
