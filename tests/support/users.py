"""Other users than the tests' own."""

from __future__ import annotations

import os
import pathlib


def let_in(directory: pathlib.Path) -> None:
    """Let any user into a test's directory; those above it that are the run's own are pytest's, for root alone."""
    for one in (directory, *directory.parents[:3]):
        if one != pathlib.Path("/tmp") and one.stat().st_uid == os.getuid():
            one.chmod(0o755)
