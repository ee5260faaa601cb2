"""The shim's own lines: on stderr, in the lifecycle's levels and colours, and never in the way."""

from __future__ import annotations

import os

from shim.record import Record, boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.policy.facts import Level

_ORDER: tuple[Level, ...] = ("debug", "info", "warn", "error")
_MARKS: dict[Level, tuple[str, str]] = {
    "debug": ("", ""),
    "info": ("", ""),
    "warn": ("Warning: ", "\x1b[33m"),
    "error": ("ERROR: ", "\x1b[31m"),
}


class Voice(Record):
    """Says lines of a level and above."""

    level: Level = "info"
    colour: bool = False

    def say(self, level: Level, sentence: str) -> None:
        """Write one line to stderr; where that can't be written to, nothing happens."""
        if _ORDER.index(level) < _ORDER.index(self.level):
            return
        mark, colour = _MARKS[level]
        if self.colour and colour:
            mark = f"{colour}{mark}\x1b[0m"
        line = " ".join(sentence.split())
        try:
            os.write(2, f"analyzed-shim: {mark}{line}\n".encode(errors="backslashreplace"))
        except OSError:
            pass


def voice(environ: Mapping[str, str], flags: Mapping[str, str]) -> Voice:
    """Return a voice as `-log-level`, `-no-color` and their `CNB_*` variables rule it; a flag wins."""
    wanted = flags.get("log-level") or environ.get("CNB_LOG_LEVEL") or "info"
    plain = boolean(flags.get("no-color") or environ.get("CNB_NO_COLOR", "")) or bool(environ.get("NO_COLOR"))
    return Voice(
        level=next((level for level in _ORDER if level == wanted.lower()), "info"),
        colour=not plain and os.isatty(2),
    )
