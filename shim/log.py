"""The shim's own lines: where the lifecycle's own go, which is stdout, in its levels, and without its colours."""

from __future__ import annotations

import os
from collections.abc import Mapping

LEVELS = ("debug", "info", "warn", "error")
TRUE = ("1", "t", "T", "true", "TRUE", "True")
"""What Go's `strconv.ParseBool` takes for true, and so the lifecycle (https://pkg.go.dev/strconv#ParseBool)."""
FALSE = ("0", "f", "F", "false", "FALSE", "False")
_MARKS = {"warn": "Warning: ", "error": "ERROR: "}


def plain(text: object, most: int = 300) -> str:
    r"""Return what others wrote as one line of at most so many characters: what isn't printable as `\x1b`.

    A name in a file or a daemon's error could otherwise move the cursor, or look like a line of its own.
    """
    line = " ".join(str(text)[: 4 * most].split())
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def without_secrets(address: str) -> str:
    """Return an address without what may be secret in it: a user and password, a query."""
    scheme, separator, rest = address.rpartition("://")
    if scheme == "unix" or rest.startswith("/"):  # a path, in which an @ is a letter as any other
        return address
    return f"{scheme}{separator}{'***@' if '@' in rest else ''}{rest.rpartition('@')[2].partition('?')[0]}"


class Log:
    """Writes lines of a level and above."""

    def __init__(self, variables: Mapping[str, str], flags: Mapping[str, str]) -> None:
        """Take the phase's environment and flags: `-log-level`, else `CNB_LOG_LEVEL` counts."""
        wanted = (flags.get("log-level") or variables.get("CNB_LOG_LEVEL") or "").lower()
        self.level = wanted if wanted in LEVELS else "info"

    def write(self, level: str, sentence: str, outcome: str = "") -> None:
        """Write one line, with the outcome in brackets; if stdout can't be written to, nothing happens."""
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        line = plain(f"{_MARKS.get(level, '')}{sentence}{f' [{outcome}]' if outcome else ''}", 2000)
        try:
            os.write(1, f"analyzed-shim: {line}\n".encode(errors="backslashreplace"))
        except OSError:
            pass
