"""The files by which a client shows who it is, and which servers it trusts, as options. It reads none of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ClientFiles:
    """What a trainer shows to servers. Secrets are in files that only their owner may read."""

    tls_ca: Path | None = None
    """PEM certificates of the authorities that signed those of grpcs:// servers. Default: the system's."""
    tls_cert: Path | None = None
    """PEM certificate (with its chain) to show to grpcs:// servers."""
    tls_key: Path | None = None
    """Its PEM private key."""
    token_file: Path | None = None
    """Token to send to grpcs:// servers, which needs --tls-ca, and to those on this host's loopback."""
    curve_key: Path | None = None
    """Secret key, made by 'framefeed keys', to show to tcp:// servers."""
    curve_server: Path | None = None
    """Public key of the tcp:// servers, one for all; they are spoken to in CURVE only."""
