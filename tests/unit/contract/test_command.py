"""The command: verbs are found, and whatever the user gets wrong is one line without a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest


def _framefeed(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "framefeed"), *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["serv", "."], "framefeed: unknown verb 'serv'; did you mean 'serve'?"),
        (
            ["xyzzy"],
            "framefeed: unknown verb 'xyzzy'; wanted one of bench decode, bench front, bench learn, bench models, ",
        ),
        (["bench"], "framefeed: bench is a family of verbs; wanted one of bench decode, bench front"),
        (
            ["serve"],
            "framefeed: serve: missing ROOT (Folder of videos, made by 'framefeed chunk' or indexed by ",
        ),
        (["show", "."], "framefeed: root . has no framefeed.manifest.jsonl; run 'framefeed index .' first"),
        (["show", ".", "--out", "a.gif"], "framefeed: --out is a.gif, wanted a file ending in .png or .mp4"),
        (["serve", "nowhere"], "framefeed: root nowhere is not a folder; wanted one made by 'framefeed chunk'"),
        (["serve", "."], "framefeed: root . has no framefeed.manifest.jsonl; run 'framefeed index .' first"),
        (["index", "nowhere"], "framefeed: root nowhere is not a folder; wanted a folder of chunk folders or video"),
        (["index", "."], "framefeed: root . holds no video file; wanted files ending in .3gp"),
        (["chunk", "nowhere", "--out", "o"], "framefeed: source nowhere does not exist"),
        (["chunk", ".", "--out", "o", "--profile", "fast"], "framefeed: --profile is 'fast', wanted one of"),
        (["serve", ".", "--worker", "2"], "framefeed: serve: there is no option --worker; did you mean --workers?"),
        (["serve", ".", "--workers", "two"], "framefeed: serve: --workers is 'two', wanted a whole number"),
    ],
)
def test_bad_input_is_one_line_and_a_failing_exit_code(tmp_path: Path, args: list[str], line: str) -> None:
    done = _framefeed(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(line), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_names_the_verbs(tmp_path: Path) -> None:
    done = _framefeed("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert _framefeed(cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("verb", ["chunk", "serve"])
def test_every_verb_has_help(tmp_path: Path, verb: str) -> None:
    done = _framefeed(*verb.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: framefeed {verb} ")
