"""A run says where its status page is: a free port is known nowhere else."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from framefeed.cli.top.pages import metrics_url
from trainer_client.training.session import RunConfig, Session, SessionOptions
from trainer_client.training.watch.train_metrics import status_line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_session_says_at_its_start_where_its_page_is(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SessionOptions(out=tmp_path / "run", metrics_port=0, metrics_host=host)
    with Session(options, config=RunConfig(what={}, steps=1)) as session:
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("status page")]
        found = re.fullmatch(r"status page (http://127\.0\.0\.1:\d+/), also for 'framefeed top ([\d.:]+)'", line)
        assert found is not None, line
        assert metrics_url(found[2]) == f"{found[1]}metrics" == session.metrics_url.replace(host, "127.0.0.1")
        with urllib.request.urlopen(found[1], timeout=20) as page:
            assert page.headers.get_content_type() == "text/html"


def test_an_address_of_ipv6_is_one_that_top_takes() -> None:
    assert status_line("http://[::]:9556/metrics").startswith(
        "status page http://[::1]:9556/, also for 'framefeed top "
    )
    assert metrics_url("[::1]:9556") == "http://[::1]:9556/metrics"
