"""The questions of one run to its daemon: one connection, and one time limit for all answers together."""

from __future__ import annotations

from shim.daemon.client import Daemon, Inquiry
from shim.errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from shim.daemon.client import About, Address


class Session:
    """Asks the daemon at an address."""

    def __init__(self, address: Address, timeout: float, environ: Mapping[str, str]) -> None:
        """Take where it is, how many seconds all of its answers may take, and the environment for TLS and the like."""
        self._address = address
        self._timeout = timeout
        self._environ = environ
        self._waited = 0.0
        self._daemon: Daemon | None = None

    def begin(self, question: Callable[[Daemon], Any]) -> Inquiry:
        """Begin to ask, in a thread of its own, after connecting if this is the first question."""

        def ask() -> Any:
            if self._daemon is None:
                self._daemon = Daemon(self._address, self._timeout, self._environ)
            return question(self._daemon)

        return Inquiry(ask)

    def answer(self, inquiry: Inquiry) -> Any:
        """Return the answer, if it comes in what is left of the time limit.

        Raises:
            Unreachable: it doesn't, or can't be used.

        """
        try:
            return inquiry.answer(self._timeout - self._waited)
        finally:
            self._waited += inquiry.took()

    def ask(self, question: Callable[[Daemon], Any]) -> Any:
        """Ask, and return the answer.

        Raises:
            Unreachable: as by `answer`.

        """
        return self.answer(self.begin(question))

    def pull(self, name: str, tell: Callable[[str, int, int], None]) -> None:
        """Have the daemon pull an image by name; that has no time limit.

        Raises:
            PullFailed: it couldn't be pulled.

        """
        assert self._daemon is not None
        self._daemon.pull(name, tell)

    def about(self) -> About | None:
        """Return what the daemon is, or None if it doesn't say."""
        try:
            about: About = self.ask(lambda daemon: daemon.about())
        except Unreachable:
            return None
        return about
