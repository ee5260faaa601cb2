"""The command line of a bundle, which has the drop-ins and `run` only: `bundle` lays this in the place of `cli`."""

from __future__ import annotations

import sys

from shim import __version__


def main() -> int:
    """Say the version, or where the other commands are, and return the exit code."""
    if sys.argv[1:] == ["--version"]:
        print(f"analyzed-shim {__version__}")
        return 0
    what = f"{sys.argv[1]} is" if sys.argv[1:] and not sys.argv[1].startswith("-") else "the other commands are"
    print(
        f"analyzed-shim: ERROR: {what} not in the bundle, which has run only (pipx install analyzed-shim has it)",
        file=sys.stderr,
    )
    return 64
