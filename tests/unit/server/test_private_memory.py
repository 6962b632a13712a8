"""A process that keeps its memory private is closed to others of its user, and works as before: as an ordinary user."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, sys
from pathlib import Path
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.private_memory import keep_memory_private

if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
keep_memory_private(private=False)

def seen(pid):
    for name in ("mem", "environ", "maps", "fd/0"):
        try:
            os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
        except PermissionError:
            yield name, False
        else:
            yield name, True

def seen_by_child():
    front = os.getpid()
    child = os.fork()
    if child == 0:
        keep_memory_private(private=False)
        for name, there in seen(front):
            print(name, there, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

seen_by_child()
print("private", flush=True)
keep_memory_private()
seen_by_child()
pool = BufferPool(1 << 20)
os.close(pool.open_to_read())
print(len(os.listdir("/proc/self/fd")) > 3, os.readlink("/proc/self/ns/net").startswith("net:"))
print(all(Path(f"/proc/{os.getpid()}/{name}").read_text() for name in ("stat", "statm", "status")))
"""


def test_others_of_the_user_see_nothing_and_what_it_does_itself_goes_on() -> None:
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, _, after = done.stdout.partition("private\n")
    assert before.split() == ["mem", "True", "environ", "True", "maps", "True", "fd/0", "True"]
    hidden = ["mem", "False", "environ", "False", "maps", "False", "fd/0", "False"]
    assert after.split() == [*hidden, "True", "True", "True"]
