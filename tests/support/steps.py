"""Run `python -m shim` and wait at each step that touches a file, or kill the whole process group at one of them.

    python -m tests.support.steps SOCKET ARGUMENT...    say each step's name there, and wait for an answer
    python -m tests.support.steps NUMBER ARGUMENT...    SIGKILL at that step, counted from 1

A step is the moment before or after one of the operating system's calls below, made by the shim's own code in its
main thread. The interpreter itself reports them (sys.setprofile); the shim has no hook and doesn't know.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
from types import FrameType
from typing import Any

CALLS = {
    *("open", "write", "pwrite", "ftruncate", "fchmod", "fchown", "setxattr", "removexattr", "replace", "unlink"),
    *("fork", "execve", "sigwaitinfo", "waitpid"),
}
"""What changes something that others see; of the files that are opened, those that are made."""


class Steps:
    """The steps so far."""

    def __init__(self, target: str) -> None:
        self.stop_at = int(target) if target.isdigit() else 0
        self.told = None if self.stop_at else socket.socket(socket.AF_UNIX)
        if self.told:
            self.told.connect(target)
        self.count = 0
        self.process = os.getpid()

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event not in ("c_call", "c_return") or not module.startswith("shim") or function.__name__ not in CALLS:
            return
        if isinstance(getattr(function, "__self__", None), str) or os.getpid() != self.process:
            return  # str.replace touches no file; a child that is about to exec has the same steps to come
        if function.__name__ == "open" and frame.f_code.co_name != "_put":
            return
        self.count += 1
        if self.count == self.stop_at:
            os.killpg(0, signal.SIGKILL)
        if self.told:
            when = "before" if event == "c_call" else "after"
            self.told.send(f"{when} {function.__name__} in {module}.{frame.f_code.co_name}\n".encode())
            self.told.recv(1)


if __name__ == "__main__":
    sys.argv[:2] = ["shim"]
    steps = Steps(sys.orig_argv[3])
    sys.setprofile(steps)
    runpy.run_module("shim", run_name="__main__", alter_sys=True)
