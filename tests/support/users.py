"""The shim as another user."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from tests.support.build import Build
from tests.support.layers import Layers

AS_USER = (
    "import json, os, platform, resource, shutil, socket, sys, tempfile; sys.path.insert(0, os.getcwd())\n"
    "import shim.__main__ as main, shim.phase.report, shim.phase.wrap, shim.phase.start, shim.daemon.client, tomllib\n"
    "import shim.tools.fix, difflib\n"
    "from tests.support import forbid; machine = platform.machine()\n"
    "os.setgroups([]); os.setgid(1000); os.setuid(1000)\n"
)
"""Becomes user 1000 after importing, because that user may not be able to read where the tests run from."""


def let_in(directory: pathlib.Path) -> None:
    """Let any user into a test's directory; those above it that are the run's own are pytest's, for root alone."""
    for one in (directory, *directory.parents[:3]):
        if one != pathlib.Path("/tmp"):
            one.chmod(0o755)


def as_user(build: Build, layers: Layers, code: str, *command: str, **environ: str) -> tuple[int, str, dict[str, Any]]:
    """Run the shim as user 1000, to whom the layers belong; return the exit code, its lines and the report."""
    build.unmeasured()
    for path in (build.directory, layers.path, layers.toml, layers.group):
        os.chown(path, 1000, 1000)
    let_in(build.directory)
    report = build.directory / "report.json"
    full = [sys.executable, "-c", f"{AS_USER}{code}\nsys.exit(main.main())", *command]
    env = {**build.env, "ANALYZED_SHIM_REPORT": str(report), **environ}
    ended = subprocess.run(full, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stderr, json.loads(report.read_text()) if report.exists() else {}
