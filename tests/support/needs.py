"""What a test needs of the machine; left out without, which under CI is an error."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.support import real


def leave_out(reason: str) -> NoReturn:
    """Leave a test out, and under CI make that an error."""
    if os.environ.get("CI"):
        raise RuntimeError(f"under CI this is required: {reason}")
    pytest.skip(reason)


def leave_out_without(*parts: str) -> None:
    """Leave a test out where real parts can't be had."""
    absent = [program for part in parts for program in real.missing(part)]
    reason = f"not installed: {', '.join(absent)}" if absent else "an engine needs root" if os.getuid() else ""
    if reason:
        leave_out(reason)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounts, which needs root")
