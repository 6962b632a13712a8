"""Once a trainer has credentials, no entry and no name leads it to servers that these do not protect."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed.server_entry import SUFFIX, host_id
from tests.entries import entry
from tests.integration.serving import wait_until
from tests.unit.client.test_members import Feed
from trainer_client.fleet.discovery import Discovery, RegistryServers, StaticServers
from trainer_client.fleet.membership import Candidate, Discovered
from trainer_client.fleet.protection import Protection
from trainer_client.transports.credentials import Credentials

URLS = (
    "shm://@a",
    "tcp://10.0.0.5:1",
    "grpcs://10.0.0.5:1",
    "grpc://10.0.0.5:1",
    "tcp://127.0.0.1:1",
    "grpc://127.0.0.1:1",
    "grpcs://decode.example@127.0.0.1:1",
)


@pytest.mark.parametrize(
    ("protection", "allowed"),
    [
        (Protection(), URLS),
        (Protection(curve=True), ("shm://@a", "tcp://10.0.0.5:1", "tcp://127.0.0.1:1")),
        (Protection(tls=True), ("shm://@a", "grpcs://10.0.0.5:1", "grpcs://decode.example@127.0.0.1:1")),
        (Protection(token=True), ("shm://@a", "grpc://127.0.0.1:1", "grpcs://decode.example@127.0.0.1:1")),
        (Protection(curve=True, tls=True), tuple(url for url in URLS if not url.startswith("grpc:"))),
    ],
)
def test_what_credentials_protect(protection: Protection, allowed: tuple[str, ...]) -> None:
    assert tuple(url for url in URLS if not protection.why_not(url)) == allowed


def test_credentials_say_what_they_protect() -> None:
    some = Path("/nowhere")
    assert Credentials().protection == Protection()
    assert Credentials(curve_key=some, curve_server=some).protection == Protection(curve=True)
    assert Credentials(tls_ca=some, token_file=some).protection == Protection(tls=True, token=True)
    assert Credentials(tls_cert=some, tls_key=some).protection == Protection(tls=True)


def test_an_entry_keeps_the_addresses_that_are_protected_and_is_refused_without_any() -> None:
    seen = (
        Candidate(name="both", urls=("grpc://10.0.0.5:1", "grpcs://10.0.0.5:2")),
        Candidate(name="plain", urls=("grpc://10.0.0.6:1", "tcp://10.0.0.6:2")),
    )
    allowed = Protection(tls=True).allowed(Discovered(source="s", seen=seen))
    assert allowed.seen == (Candidate(name="both", urls=("grpcs://10.0.0.5:2",)),)
    assert allowed.refused == (("plain", "grpc:// is not protected by the credentials that were given"),)
    blind = Discovered(source="s", seen=None, why="gone")
    assert Protection(tls=True).allowed(blind) is blind


def test_a_name_that_leads_to_unprotected_addresses_is_refused_at_once() -> None:
    Protection(tls=True).check(("grpc://10.0.0.5:1", "dns+grpcs://decode.example:1", "registry:///run/x"))
    for url in ("dns+tcp://decode.example:1", "dns+grpc://decode.example:1"):
        Protection().check((url,))
        with pytest.raises(BadInput, match=r"is not protected by the credentials"):
            Protection(tls=True).check((url,))


@pytest.mark.parametrize("share", [False, True])
def test_a_plain_entry_of_a_registry_moves_nobody(tmp_path: Path, share: bool) -> None:
    """Also where another rank looks, whose credentials are others: what is told is filtered by who is told."""
    for name, url in (("evil", "tcp://10.6.6.6:1"), ("honest", "grpcs://10.0.0.5:1")):
        (tmp_path / f"{name}{SUFFIX}").write_text(entry(endpoints=(url,), host=host_id()).pack())
    reported = threading.Event()
    source = RegistryServers(f"registry://{tmp_path}")
    without = Discovery([source], every_s=0.05, on_report=lambda: None, share=share)
    given = Discovery([source], every_s=0.05, on_report=reported.set, protection=Protection(tls=True), share=share)
    without.start()
    wait_until("one looks", without.discovered)
    given.start()
    try:
        assert reported.wait(20)
        (look, *_) = given.discovered()
    finally:
        given.close()
        without.close()
    assert look.seen is not None
    assert [candidate.urls for candidate in look.seen] == [("grpcs://10.0.0.5:1",)]
    assert [name for name, _ in look.refused] == [f"evil{SUFFIX}"]


def test_what_the_user_gave_is_the_user_s(tmp_path: Path) -> None:
    given = Discovery(
        [StaticServers(["tcp://10.0.0.5:1"])], every_s=1.0, on_report=lambda: None, protection=Protection(tls=True)
    )
    given.start()
    (look,) = given.discovered()
    assert look.seen == (Candidate(name="tcp://10.0.0.5:1", urls=("tcp://10.0.0.5:1",)),)
    given.close()


def test_who_is_refused_is_named_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    refused = (("evil\n\x1b[2J", "tcp:// is not protected"),)
    for _ in range(3):
        feed.discovery._discovered.append(Discovered(source="registry:///r", seen=(), refused=refused))
        feed.tend()
    assert feed.ledger.shunned == {"unprotected": 1}
    (line,) = [record.getMessage() for record in caplog.records if "is refused" in record.getMessage()]
    assert line == r"registry:///r: server evil\n\x1b[2J is refused: tcp:// is not protected"
    assert not feed.wire.now


def test_a_registry_full_of_refused_entries_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    for turn in range(20):
        refused = tuple((f"{turn}-{number}", "no") for number in range(500))
        feed.discovery._discovered.append(Discovered(source="r", seen=(), refused=refused))
        feed.tend()
    assert len([record for record in caplog.records if "is refused" in record.getMessage()]) == 100
    assert 4096 <= feed.ledger.shunned["unprotected"] <= 10_000
