"""Whether a group.toml surely has no image extensions: what most builds need to know of it."""

from __future__ import annotations

KEY = "group-extensions"


def surely_has_none(data: bytes) -> bool:
    """Return whether a group.toml has no image extensions by its bytes alone, as in most builds, without a parser.

    The key isn't in them, nor a backslash, by which it could be spelt otherwise. If it is no TOML the phase says so.
    """
    return KEY.encode() not in data and b"\\" not in data
