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


def package_index() -> dict[str, str]:
    """Return what a machine needs to reach its package index, and nothing else of this one's environment."""
    names = ("https_proxy", "no_proxy", "ssl_cert_file", "requests_ca_bundle")
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower() in names}


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounts, which needs root")
