"""The phase's own platform: the shim runs where the phase runs."""

from __future__ import annotations

import os
import sys

_ARCHITECTURES = {
    "x86_64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv5l": "arm/v5",
    "armv5tel": "arm/v5",
    "armv6l": "arm/v6",
    "armv7l": "arm/v7",
    "armv8l": "arm/v7",
    "loongarch64": "loong64",
}
"""What uname(2) calls a machine, and what Go's GOARCH and an OCI platform's variant do; others have one name."""


def own_platform(machine: str = os.uname().machine) -> str:
    """Return this machine's platform as an image names it, such as `linux/amd64` or `linux/arm/v7`."""
    if machine in ("mips", "mips64", "ppc64") and sys.byteorder == "little":
        machine += "le"
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"
