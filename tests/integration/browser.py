"""A real Chromium without a screen, driven over WebDriver's plain HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.integration.serving import PATIENCE_S, wait_until

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")


class Browser:
    """One window within its `with`."""

    def __init__(self, *, width_px: int = 1100, height_px: int = 900) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self._url.rpartition(":")[2]
        self._driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL)
        self._session = ""
        self._size = (width_px, height_px)

    def __enter__(self) -> Browser:
        wait_until("the driver listens", self._listens)
        emulated = {"width": self._size[0], "height": self._size[1], "pixelRatio": 1}
        options = {
            "binary": CHROMIUM,
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                f"--window-size={self._size[0]},{self._size[1]}",
            ],
            "mobileEmulation": {"deviceMetrics": emulated},
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        said = self._ask("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{said['sessionId']}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._session:
            self._ask(self._session, None, method="DELETE")
        self._driver.terminate()
        self._driver.wait(PATIENCE_S)

    def open(self, url: str) -> None:
        self._ask(f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._ask(f"{self._session}/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """What it complained of since the last time."""
        told = self._ask(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in told if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, path: Path) -> bytes:
        """The window as PNG, also in a file."""
        png = base64.b64decode(self._ask(f"{self._session}/screenshot", None, method="GET"))
        path.write_bytes(png)
        return png

    def _listens(self) -> bool:
        try:
            return bool(self._ask("/status", None, method="GET")["ready"])
        except OSError:
            return False

    def _ask(self, path: str, body: dict[str, Any] | None, *, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)["value"]
