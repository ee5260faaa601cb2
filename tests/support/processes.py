"""Programs that a test writes, terminals they run on, and waiting for them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import textwrap
import time
from collections.abc import Callable, Sequence


def program(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(textwrap.dedent(text))
    path.chmod(0o755)
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.02)


def leading_a_terminal(command: Sequence[str], environ: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command as the leader of a terminal's session, and return it and our end of the terminal."""
    ours, its = os.openpty()
    process = subprocess.Popen(["setsid", "--ctty", *command], env=environ, stdin=its, stdout=its, stderr=its)
    os.close(its)
    return process, ours


def on_a_terminal(command: Sequence[str], environ: dict[str, str]) -> tuple[int, bytes]:
    """Run a command on a terminal of its own, and return its exit status and what it showed."""
    process, ours = leading_a_terminal(command, environ)
    seen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while True:
            seen += os.read(ours, 1000)
    os.close(ours)
    return process.wait(60), seen
