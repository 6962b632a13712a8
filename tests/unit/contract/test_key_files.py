"""Secrets that others could read are refused, and so is what is no key, by option and file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zmq

from framefeed.cli.command import main
from framefeed.errors import BadInput
from framefeed.key_files import (
    read_curve_list,
    read_curve_public,
    read_curve_secret,
    read_public,
    read_secret,
    read_token,
    write_public,
    write_secret,
)

KEYS = [zmq.curve_keypair()[0] for _ in range(50)]


def file_with(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_secret_that_its_owner_and_group_alone_can_read_is_read(tmp_path: Path, mode: int) -> None:
    assert read_secret(file_with(tmp_path / "s", b"x", mode), option="--s") == b"x"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666, 0o602, 0o601])
def test_a_secret_of_others_is_refused_and_the_line_says_what_to_do(tmp_path: Path, mode: int) -> None:
    path = file_with(tmp_path / "s", b"x", mode)
    with pytest.raises(BadInput, match=f"--s: {path} is a secret and has mode {mode:03o}, wanted 600: chmod 600"):
        read_secret(path, option="--s")
    assert read_public(path, option="--s") == b"x"


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--tls-key: .*/none cannot be read: No such file"):
        read_secret(tmp_path / "none", option="--tls-key")
    with pytest.raises(BadInput, match="cannot be read: it is a folder, wanted a regular file"):
        read_public(tmp_path, option="--tls-key")
    with pytest.raises(BadInput, match="has no bytes"):
        read_public(file_with(tmp_path / "empty", b""), option="--x")
    with pytest.raises(BadInput, match="has 1048577 bytes, wanted 1 to 1048576"):
        read_public(file_with(tmp_path / "long", bytes((1 << 20) + 1)), option="--x")


def test_a_token_is_one_word(tmp_path: Path) -> None:
    assert read_token(file_with(tmp_path / "t", b" a-token-of-16-ch \n"), option="--t") == b"a-token-of-16-ch"
    for bad in (b"short", b"two words that are long", b"b\xc3\xa4d-token-of-some-length", b"x" * 1025):
        with pytest.raises(BadInput, match="wanted one word of 16 to 1024 ASCII characters"):
            read_token(file_with(tmp_path / "t", bad), option="--t")


def test_every_key_that_zmq_makes_is_one(tmp_path: Path) -> None:
    for key in KEYS:
        path = file_with(tmp_path / "k", key + b"\n")
        assert read_curve_public(path, option="--k") == read_curve_secret(path, option="--k") == key
    for bad in (KEYS[0][:-1], KEYS[0] + b"x", b" ".join(KEYS[:2]), b"\xff" * 40):
        with pytest.raises(BadInput, match="holds no key of 40 characters; 'framefeed keys' makes a pair"):
            read_curve_public(file_with(tmp_path / "k", bad), option="--k")


def test_a_list_has_a_key_a_line_and_comments(tmp_path: Path) -> None:
    lines = b"# trainers\n\n" + b"".join(key + b" # number %d\n" % i for i, key in enumerate(KEYS))
    assert read_curve_list(file_with(tmp_path / "l", lines, 0o644), option="--l") == frozenset(KEYS)
    with pytest.raises(BadInput, match="holds no key, wanted at least one"):
        read_curve_list(file_with(tmp_path / "l", b"# nobody yet\n", 0o644), option="--l")
    with pytest.raises(BadInput, match="holds no key of 40 characters"):
        read_curve_list(file_with(tmp_path / "l", lines + b"oops\n", 0o644), option="--l")
    with pytest.raises(BadInput, match="mode 664, wanted no other writer than its owner"):
        read_curve_list(file_with(tmp_path / "l", lines, 0o664), option="--l")


def test_written_files_are_new_and_have_their_modes(tmp_path: Path) -> None:
    write_secret(tmp_path / "s", b"x")
    write_public(tmp_path / "p", b"y")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o644 & ~umask
    with pytest.raises(BadInput, match="cannot be written: File exists"):
        write_secret(tmp_path / "s", b"z")
    assert (tmp_path / "s").read_bytes() == b"x"


def test_keys_make_their_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/security.md begins."""
    folder = tmp_path / "new" / "keys"
    for name in ("server", "trainer"):
        assert main(["keys", str(folder), name]) == 0
    assert read_curve_public(folder / "server.public", option="--k") != read_curve_public(
        folder / "trainer.public", option="--k"
    )
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("no folder")
    assert main(["keys", str(tmp_path / "file"), "server"]) == 2
    assert "cannot be made" in capsys.readouterr().err
