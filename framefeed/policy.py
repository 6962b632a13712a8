"""Policy: what a request has one of several kinds of, such as a crop. It knows none of the kinds.

A kind is a value that checks itself when it is built; its tag is its name wherever requests are spelled.
"""

from __future__ import annotations

from msgspec import Struct


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="policy"):
    """The base of all kinds. One that is spelled with a field that it does not have is refused."""
