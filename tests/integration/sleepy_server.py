"""The fake server without its periodic turn: what no event announces is not done for ten minutes."""

from __future__ import annotations

import runpy

from decode_server.service import front

if __name__ == "__main__":
    front._TURN_S = 600.0
    runpy.run_module("tests.integration.fake_server", run_name="__main__")
