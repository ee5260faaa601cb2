"""How far a pull is: one line that changes on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import os
import time

from shim.words import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.phase.log import Log

_MEGABYTE = 1_000_000
_EVERY = 10.0
"""Seconds between two plain lines."""


class Progress:
    """The progress of one pull, summed up over its layers."""

    def __init__(self, log: Log, name: str) -> None:
        """Say that it begins."""
        self._log = log
        self._name = name = plain(name)
        self._layers: dict[str, tuple[int, int]] = {}
        self._terminal = os.isatty(2) and log.level in ("debug", "info")
        self._last = time.monotonic()
        log.write("info", f"pulling {name} into the daemon")

    def tell(self, layer: str, current: int, total: int) -> None:
        """Take in how many bytes of a layer are there, of how many (0: not known)."""
        if total:
            self._layers[layer] = (current, total)
        now = time.monotonic()
        if not self._terminal and now - self._last < _EVERY:
            return
        self._last = now
        here, all_of_it = (sum(sizes) for sizes in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        text = f"pulling {self._name}: {here / _MEGABYTE:.1f} of {all_of_it / _MEGABYTE:.1f} MB"
        if self._terminal:
            self._write(f"\r\x1b[Kanalyzed-shim: {text}")
        else:
            self._log.write("info", text)

    def end(self) -> None:
        """Take the changing line away."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            os.write(2, text.encode())
        except OSError:
            pass
