"""Keys, tokens and certificates as files: read whole, once, and refused where others could read a secret one.

Secrets are in files because command lines and environments are seen by every process of a machine. It knows no
transport. A CURVE key is one line of 40 characters (Z85, rfc.zeromq.org/spec/32) as `framefeed keys` writes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.regular_file import open_regular

_MAX_BYTES = 1 << 20
_Z85_KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_TOKEN = re.compile(rb"[\x21-\x7e]{16,1024}")


def read_public(path: Path, *, option: str) -> bytes:
    """What lies in a file. Raises BadInput, naming the option, if it cannot be read, is empty or larger than 1 MiB."""
    return _read(path, option=option, secret=False)


def read_secret(path: Path, *, option: str) -> bytes:
    """As read_public. Raises BadInput too if others than owner and group can read it, or others than the owner write.

    The group may read, as it does where Kubernetes mounts secrets.
    """
    return _read(path, option=option, secret=True)


def read_token(path: Path, *, option: str) -> bytes:
    """The token in a file, 16 to 1024 printable ASCII characters. Raises BadInput as read_secret does."""
    token = read_secret(path, option=option).strip()
    if not _TOKEN.fullmatch(token):
        raise BadInput(f"{option}: {path} holds {len(token)} bytes, wanted one word of 16 to 1024 ASCII characters")
    return token


def read_curve_secret(path: Path, *, option: str) -> bytes:
    """The CURVE secret key in a file. Raises BadInput as read_secret does, or if it is none."""
    return _curve_key(read_secret(path, option=option).strip(), path, option)


def read_curve_public(path: Path, *, option: str) -> bytes:
    """The CURVE public key in a file. Raises BadInput as read_public does, or if it is none."""
    return _curve_key(read_public(path, option=option).strip(), path, option)


def read_curve_list(path: Path, *, option: str) -> frozenset[bytes]:
    """CURVE public keys, one a line; # begins a comment. Raises BadInput for a line that is none, or if none is there.

    Who can write the list decides who may connect, so it must be the owner alone who can.
    """
    lines = _read(path, option=option, secret=False).splitlines()
    _check_writers(path, option)
    words = [word for line in lines if (word := line.split(b" #")[0].strip()) and not word.startswith(b"# ")]
    if not words:
        raise BadInput(f"{option}: {path} holds no key, wanted at least one")
    return frozenset(_curve_key(word, path, option) for word in words)


def check_pair(certificate: bytes, key: bytes, *, what: str) -> None:
    """Raises BadInput, naming `what`, unless both are PEM and the key is the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _in_memory(certificate) as certificate_file, _in_memory(key) as key_file:
        try:
            context.load_cert_chain(certificate_file, key_file, password=lambda: b"")  # an encrypted key asks nobody
        except (ssl.SSLError, OSError) as error:
            raise BadInput(f"{what} are not a certificate and its key: {_reason(error)}") from None


def check_authorities(certificates: bytes, *, what: str) -> None:
    """Raises BadInput, naming `what`, unless these are PEM certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise BadInput(f"{what} holds no PEM certificates: {_reason(error)}") from None


def write_secret(path: Path, data: bytes) -> None:
    """A new file that only its owner can read. Raises BadInput if there is one already, or it cannot be written."""
    _write(path, data, mode=0o600)


def write_public(path: Path, data: bytes) -> None:
    """A new file that all can read. Raises BadInput as write_secret does."""
    _write(path, data, mode=0o644)


def _write(path: Path, data: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None


def _read(path: Path, *, option: str, secret: bool) -> bytes:
    try:
        with open(open_regular(path), "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{option}: {path} cannot be read: {error.strerror}") from None
    if secret and mode & 0o027:
        raise BadInput(f"{option}: {path} is a secret and has mode {mode:03o}, wanted 600: chmod 600 {path}")
    if not 0 < len(data) <= _MAX_BYTES:
        raise BadInput(f"{option}: {path} has {len(data) or 'no'} bytes, wanted 1 to {_MAX_BYTES}")
    return data


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path of a file that lies in memory: OpenSSL reads PEM from files only."""
    with open(os.memfd_create("pem", os.MFD_CLOEXEC), "wb", buffering=0) as file:
        file.write(data)
        yield f"/proc/self/fd/{file.fileno()}"


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def _check_writers(path: Path, option: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022:
        raise BadInput(f"{option}: {path} has mode {mode:03o}, wanted no other writer than its owner: chmod 644 {path}")


def _curve_key(word: bytes, path: Path, option: str) -> bytes:
    if not _Z85_KEY.fullmatch(word):
        raise BadInput(f"{option}: {path} holds no key of 40 characters; 'framefeed keys' makes a pair")
    return word
