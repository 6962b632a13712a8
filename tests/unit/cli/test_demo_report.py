"""What the demo says of a run that has ended is why it ended, and no alarm."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from framefeed.cli.demo_report import parse_metrics, print_summary, why_ended

PAGE = """framefeed_trainer_steps_total{rank="0"} 145.0
framefeed_trainer_loss{rank="0"} 0.5
"""
FEED = """framefeed_trainer_clips_total 580.0
framefeed_client_server_up{server="a"} 0.0
framefeed_client_server_up{server="b"} 1.0
"""


def test_a_run_without_a_feed_is_not_told_of() -> None:
    assert not parse_metrics("").is_training
    assert not parse_metrics(PAGE).is_training  # it saves, and the loader with its servers is closed
    now = parse_metrics(PAGE + FEED)
    assert now.is_training
    assert (now.steps, now.clips, now.up) == (145, 580, 1)


@pytest.mark.parametrize(
    ("ending", "done", "says"),
    [
        ("out of time", 145, "its 60 s were over, as is meant; a faster machine takes up to 960 steps in them"),
        ("out of time", 960, "all its 960 steps were done"),
        ("all steps done", 960, "all its 960 steps were done"),
        ("stopped by a signal", 145, "stopped by a signal, after 145 of 960 steps"),
    ],
)
def test_the_summary_says_why_the_run_ended(ending: str, done: int, says: str) -> None:
    body = {"ending": ending, "last_step": done, "steps": done, "clips": 4 * done, "seconds": 60.1, "videos_per_s": 9.6}
    body |= {"starvation_percent": 1.0, "wait_s": {}, "loss_first": 1.0, "loss_last": 0.5}
    body |= {"read_bytes_per_clip": 1e3, "retries": {}}
    said = io.StringIO()
    ended = why_ended(body, steps=960, seconds=60.0)
    print_summary(Console(file=said, width=200), body, chunks=[{"state": "whole"}], killed="", ended=ended)
    (line,) = [line for line in said.getvalue().splitlines() if line.strip().startswith("ended")]
    assert line.split(maxsplit=1)[1].strip() == says
