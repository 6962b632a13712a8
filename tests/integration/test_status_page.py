"""The trainer's status page while a run goes: in a real browser, wide and as narrow as a telephone."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import test_train
from tests.integration.browser import CHROMIUM, DRIVER, Browser
from tests.integration.serving import Server, wait_until
from tests.integration.test_train import Trainer

root, server = test_train.root, test_train.server  # its fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium, chromium-driver"),
]
POINTS = "return charts.flow ? charts.flow.plot.data[0].length : 0"


@pytest.fixture(scope="module")
def page(root: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, of a run that goes on."""
    out = tmp_path_factory.mktemp("run")
    with Trainer(root, out, server) as trainer:
        trainer.wait_for_step(1)
        yield json.loads((out / "run.json").read_text())["metrics_url"].removesuffix("metrics")


@pytest.mark.parametrize("width_px", [1100, 375])
def test_charts_move_and_nothing_is_complained_of(page: str, width_px: int, tmp_path: Path) -> None:
    with Browser(width_px=width_px) as browser:
        browser.open(page)
        wait_until("two points", lambda: browser.run(POINTS) >= 2, patience_s=60)
        before, then = browser.picture(tmp_path / "before.png"), browser.run(POINTS)
        wait_until("another point", lambda: browser.run(POINTS) > then, patience_s=60)
        assert browser.picture(tmp_path / "after.png") != before
        assert browser.run("return document.documentElement.scrollWidth") <= width_px
        assert browser.run("return innerWidth") == width_px
        rows = browser.run("return [...document.querySelectorAll('#ranks td')].map((cell) => cell.textContent)")
        assert rows[0] == "0"
        assert float(rows[3]) > 0, "clips a second"
        busy = "return [...document.querySelectorAll('#servers td')].map((cell) => cell.textContent)[3] || ''"
        wait_until("its own page is read, of which nobody told", lambda: "%" in browser.run(busy), patience_s=60)
        assert "starting: looking" not in browser.run("return document.getElementById('verdict').textContent")
        assert browser.console() == []


def test_nothing_is_loaded_from_elsewhere_and_the_whole_is_small(page: str) -> None:
    with Browser() as browser:
        browser.open(page)
        wait_until("it drew", lambda: browser.run(POINTS) >= 1, patience_s=60)
        loaded = browser.run("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert all(name.startswith(page) for name in loaded)
        names = {name for name in loaded if not name.endswith("status.json")} | {page}
    total_bytes = 0
    for name in names:
        with urllib.request.urlopen(name) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            total_bytes += len(answer.read())
    assert total_bytes <= 120_000


def test_words_of_a_run_never_become_markup() -> None:
    script = (Path(__file__).parents[2] / "trainer_client/training/watch/page/page.js").read_text()
    assert not any(word in script for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("))
