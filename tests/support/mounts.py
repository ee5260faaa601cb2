"""Mounts that nobody else sees."""

from __future__ import annotations

import subprocess

from tests.support.build import Build


def in_mount_namespace(script: str, *command: str, build: Build, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command after a script of mounts that nobody else sees."""
    full = ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh", *command]
    return subprocess.run(full, env={**build.env, **environ}, capture_output=True, text=True, timeout=60, check=False)
