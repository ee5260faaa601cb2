"""The shim's own lines: on stderr, in the lifecycle's levels and colours, and never in the way."""

from __future__ import annotations

import os

from shim.record import boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.policy.row import Level

_MOST = 2000
"""Characters that a line may have."""
_ORDER: tuple[Level, ...] = ("debug", "info", "warn", "error")
_MARKS: dict[Level, tuple[str, str]] = {
    "debug": ("", ""),
    "info": ("", ""),
    "warn": ("Warning: ", "\x1b[33m"),
    "error": ("ERROR: ", "\x1b[31m"),
}


class Log:
    """Writes lines of a level and above, and keeps the warnings for the report."""

    def __init__(self, level: Level = "info", colour: bool = False) -> None:
        """Take the least level that is written, and whether marks are coloured."""
        self.level = level
        self._colour = colour
        self.warnings: list[str] = []

    def write(self, level: Level, sentence: str, outcome: str = "") -> None:
        """Write one line to stderr, with the outcome in brackets; if that can't be written to, nothing happens."""
        if level in ("warn", "error"):
            self.warnings.append(sentence)
        if _ORDER.index(level) < _ORDER.index(self.level):
            return
        mark, colour = _MARKS[level]
        if self._colour and colour:
            mark = f"{colour}{mark}\x1b[0m"
        from shim.words import plain

        line = plain(f"{sentence} [{outcome}]" if outcome else sentence, _MOST)
        try:
            os.write(2, f"analyzed-shim: {mark}{line}\n".encode())
        except OSError:
            pass


def log_for(environ: Mapping[str, str], flags: Mapping[str, str]) -> Log:
    """Return the log that `-log-level`, `-no-color` and their `CNB_*` variables ask for; a flag wins."""
    wanted = flags.get("log-level") or environ.get("CNB_LOG_LEVEL") or "info"
    plain = boolean(flags.get("no-color") or environ.get("CNB_NO_COLOR", "")) or bool(environ.get("NO_COLOR"))
    level: Level = next((level for level in _ORDER if level == wanted.lower()), "info")
    return Log(level, colour=not plain and os.isatty(2))
