"""Programs that a test writes, and waiting for them."""

from __future__ import annotations

import pathlib
import textwrap
import time
from collections.abc import Callable


def program(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(textwrap.dedent(text))
    path.chmod(0o755)
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.02)
