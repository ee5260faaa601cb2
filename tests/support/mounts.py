"""Mounts that nobody else sees."""

from __future__ import annotations

import subprocess

from tests.support.shim import Shim


def in_mount_namespace(script: str, *command: str, shim: Shim, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command after a script of mounts that nobody else sees."""
    full = ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh", *command]
    return subprocess.run(full, env={**shim.env, **environ}, capture_output=True, text=True, timeout=60, check=False)
