"""Sources of servers: what each makes of what it finds, garbage included, and discovery over them."""

import errno
import os
import threading
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed.server_entry import SUFFIX, host_id
from tests.entries import entry
from tests.integration.serving import wait_until
from trainer_client.fleet.addresses import check_servers
from trainer_client.fleet.discovery import (
    Discovery,
    DnsServers,
    RegistryServers,
    StaticServers,
    sources_of,
    usable_urls,
)
from trainer_client.fleet.membership import Candidate


def urls(found: list[Candidate]) -> list[tuple[str, ...]]:
    return [candidate.urls for candidate in found]


def test_every_address_of_a_name_is_a_server() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.5", "[fd00::7]"]

    source = DnsServers("dns+grpc://decode.internal:5555", resolve)
    assert urls(source.look()) == [("grpc://10.0.0.5:5555",), ("grpc://[fd00::7]:5555",)]
    assert asked == [("decode.internal", 5555)]
    assert str(source) == "dns+grpc://decode.internal:5555"


def test_the_resolver_of_the_system_is_asked() -> None:
    assert ("tcp://127.0.0.1:5555",) in urls(DnsServers("dns+tcp://localhost:5555").look())
    with pytest.raises(OSError, match=r"\w"):
        DnsServers("dns+tcp://nobody.invalid:5555").look()
    with pytest.raises(OSError, match="is no name"):
        DnsServers(f"dns+tcp://{'n' * 99}:5555").look()


def test_whole_entries_are_servers_and_all_else_is_left_out_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = entry(beat=4)
    (tmp_path / f"a{SUFFIX}").write_text(whole.pack())
    (tmp_path / f"half{SUFFIX}").write_text(whole.pack()[:40])
    (tmp_path / f"empty{SUFFIX}").write_text("")
    (tmp_path / f"bytes{SUFFIX}").write_bytes(b"\xff\xfe\0")
    (tmp_path / f"folder{SUFFIX}.part").mkdir()
    (tmp_path / f"a{SUFFIX}.part").write_text(whole.pack())
    (tmp_path / f"useless{SUFFIX}").write_text(entry(endpoints=("carrier-pigeon://loft", "shm://@a")).pack())
    (tmp_path / "notes.txt").write_text("ours")
    os.mkfifo(tmp_path / f"pipe{SUFFIX}")
    (tmp_path / f"big{SUFFIX}").write_bytes(b" " * 70_000)
    (tmp_path / f"link{SUFFIX}").symlink_to(tmp_path / f"a{SUFFIX}")
    (tmp_path / f"tree{SUFFIX}").mkdir()
    source = RegistryServers(f"registry://{tmp_path}")
    for _ in range(2):
        (found,) = source.look()
        assert found == Candidate(name=f"a{SUFFIX}", urls=whole.endpoints, beat=4, lease_s=90.0)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 8
    assert any(f"useless{SUFFIX} names no endpoint that this host can use" in text for text in said)


def test_a_folder_that_is_not_there_is_an_oserror_not_an_empty_registry(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RegistryServers(f"registry://{tmp_path}/nowhere").look()


@pytest.mark.parametrize(
    ("host", "usable"),
    [
        ("boot/net", ("shm://@a", "tcp://127.0.0.1:7", "tcp://10.0.0.5:5555", "grpc://10.0.0.5:5556")),
        ("other/net", ("tcp://10.0.0.5:5555", "grpc://10.0.0.5:5556")),
        ("", ("tcp://10.0.0.5:5555", "grpc://10.0.0.5:5556")),
    ],
)
def test_the_best_endpoint_that_can_be_reached_comes_first(host: str, usable: tuple[str, ...]) -> None:
    endpoints = ("grpc://10.0.0.5:5556", "tcp://127.0.0.1:7", "tcp://10.0.0.5:5555", "shm://@a", "warp://a")
    assert usable_urls(entry(endpoints=endpoints), host) == usable


def test_entries_of_hosts_that_do_not_know_themselves_are_not_taken_for_this_one() -> None:
    assert usable_urls(entry(host="", endpoints=("shm://@a",)), "") == ()


def test_what_the_user_gives_becomes_sources() -> None:
    given = ("tcp://10.0.0.5:5555", "registry:///run/servers", "dns+tcp://decode:5555", "shm://@a")
    assert check_servers(given) == given
    assert [str(source) for source in sources_of(given)] == [
        "tcp://10.0.0.5:5555, shm://@a",
        "dns+tcp://decode:5555",
        "registry:///run/servers",
    ]
    assert urls(StaticServers(given[:1]).look()) == [("tcp://10.0.0.5:5555",)]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("registry://run/servers", "names no folder"),
        ("registry://", "names no folder"),
        ("dns+shm://@a", "has no host to look up"),
        ("dns+tcp://decode", "names no port"),
        ("dns+://decode:5", "unknown transport"),
        ("dns+carrier://decode:5", "unknown transport"),
    ],
)
def test_what_names_no_source_is_one_line(given: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        check_servers([given])


class Scripted:
    """A source that gives what it is told, one thing a look, the last one for ever."""

    changes = True

    def __init__(self, *script: list[Candidate] | OSError) -> None:
        self.script = list(script)
        self.looks = 0

    def look(self) -> list[Candidate]:
        self.looks += 1
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(now, OSError):
            raise now
        return now

    def __str__(self) -> str:
        return "scripted"


def test_discovery_reports_every_look_and_says_a_trouble_once(caplog: pytest.LogCaptureFixture) -> None:
    a, trouble = Candidate(name="a", urls=("tcp://a:1",)), OSError(errno.EIO, os.strerror(errno.EIO))
    source = Scripted([a], trouble, trouble, trouble, [])
    discovery = Discovery([source], every_s=0.001, on_report=lambda: None, share=False)
    discovery.start()
    wait_until("it looked", lambda: source.looks > 5)
    discovery.close()
    seen = discovery.discovered()
    assert [s.seen for s in seen[:5]] == [(a,), None, None, None, ()]
    assert seen[1].why == "cannot be looked at (Input/output error)"
    assert len([r for r in caplog.records if "the servers known from it stay" in r.getMessage()]) == 1
    assert discovery.discovered() == []


def test_a_source_that_hangs_holds_up_no_other_and_no_close() -> None:
    entered, until = threading.Event(), threading.Event()

    class Hung(Scripted):
        def look(self) -> list[Candidate]:
            entered.set()
            assert until.wait(60)
            return super().look()

    discovery = Discovery([Hung([]), Scripted([])], every_s=0.001, on_report=lambda: None, share=False)
    discovery.start()
    assert entered.wait(20)
    wait_until("the other reports", discovery.discovered)
    discovery.close()
    discovery.close()
    until.set()


def test_what_does_not_change_needs_no_thread() -> None:
    before = threading.active_count()
    discovery = Discovery([StaticServers(["tcp://a:1"])], every_s=0.001, on_report=lambda: pytest.fail("no report"))
    discovery.start()
    assert threading.active_count() == before
    (discovered,) = discovery.discovered()
    assert discovered.seen == (Candidate(name="tcp://a:1", urls=("tcp://a:1",)),)
    discovery.close()


def test_this_host_is_found_in_its_own_entry(tmp_path: Path) -> None:
    (tmp_path / f"a{SUFFIX}").write_text(entry(host=host_id(), endpoints=("tcp://10.0.0.5:5555", "shm://@a")).pack())
    (found,) = RegistryServers(f"registry://{tmp_path}").look()
    assert found.urls == ("shm://@a", "tcp://10.0.0.5:5555")
