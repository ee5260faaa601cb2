"""An edit by itself, and how long it is fuzzed."""

from __future__ import annotations

import os

from shim.layers import analyzed

SCALE = float(os.environ.get("FUZZ", "1"))


def edited_as(data: bytes, reference: str) -> bytes:
    return analyzed.edit(analyzed.parse("f", data, os.stat(".")), reference)
