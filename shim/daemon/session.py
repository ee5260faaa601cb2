"""The questions of one run: asked while the restorer runs, and answered within one time limit."""

from __future__ import annotations

from shim.errors import PullFailed, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from shim.daemon.client import About, Daemon, Image, Tell, Warn
    from shim.daemon.find import Address

    _T = TypeVar("_T")


class Session:
    """The daemon of one run, and the time that its answers may take together."""

    def __init__(self, address: Address, timeout: float, environ: Mapping[str, str]) -> None:
        """Take how it is asked; nothing is, yet.

        Args:
            address: where it is.
            timeout: seconds that all its answers together may be waited for.
            environ: the environment of the phase.

        """
        self.address = address
        self.answered = False
        """Whether all that was asked so far was answered; at least something was."""
        self._timeout = timeout
        self._left = timeout
        self._environ = environ
        self._daemon: Daemon | None = None

    def begin(self, question: Callable[[Daemon], Any]) -> Inquiry:
        """Begin to ask, in a thread of its own."""
        return Inquiry(lambda: question(self._connected()))

    def answer(self, inquiry: Inquiry) -> Any:
        """Return an answer, if it comes in what is left of the time limit.

        Raises:
            Unreachable: it doesn't, or can't be used.

        """
        self.answered = False
        try:
            answer = inquiry.answer(self._left)
        except TimeoutError:
            what = f"the daemon at {self.address.url} did not answer within {self._timeout:g} s"
            raise Unreachable(what, "raise it with --timeout") from None
        finally:
            self._left -= inquiry.took()
        self.answered = True
        return answer

    def ask(self, question: Callable[[Daemon], _T]) -> _T:
        """Ask, and return the answer.

        Raises:
            Unreachable: there is none in time, or none that can be used.

        """
        answer: _T = self.answer(self.begin(question))
        return answer

    def pull(self, name: str, tell: Tell, warn: Warn) -> Image:
        """Pull an image for the phase's platform, however long it takes, and return it.

        Args:
            name: the image's name.
            tell: takes a layer's ID, how many bytes of it are there, and how many it has.
            warn: takes a line about credentials that can't be read.

        Raises:
            PullFailed: it couldn't be pulled.

        """
        from shim.daemon.platform import own_platform

        try:
            return self._connected().pull(name, own_platform(), tell, warn)
        except Unreachable as problem:
            raise PullFailed(str(problem)) from None

    def about(self) -> About | None:
        """Return what the daemon is, or None if it doesn't say in time."""
        try:
            return self.ask(lambda daemon: daemon.about())
        except Unreachable:
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._daemon:
            self._daemon.close()

    def _connected(self) -> Daemon:
        if self._daemon is None:
            from shim.daemon.client import Daemon

            self._daemon = Daemon(self.address, self._timeout, self._environ)
        return self._daemon


class Inquiry:
    """A question, asked in a thread of its own."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        """Begin to ask."""
        import signal  # here and below: what execs the phase without asking doesn't pay for it
        import threading
        import time

        self._ready = threading.Event()
        self._answered = threading.Event()
        self._answer: Any = None
        self._problem: Exception | None = None
        self._started = time.monotonic()
        self._ended: float | None = None
        self._thread = threading.Thread(target=self._run, args=(ask,), daemon=True)
        # The thread inherits the mask: a signal is for whoever waits for the phase, and one that the kernel gives to
        # this thread instead would be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        except RuntimeError:  # no room for another thread
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self._thread.ident is None:
            self._run(ask)

    def _run(self, ask: Callable[[], Any]) -> None:
        import time

        try:
            import shim.daemon.client  # noqa: F401  # no part of the daemon's answer, so the clock starts after it

            self._started = time.monotonic()
            self._ready.set()
            self._answer = ask()
        except Exception as problem:  # is raised to whoever waits for the answer
            self._problem = problem
        finally:
            self._ended = time.monotonic()
            self._ready.set()
            self._answered.set()

    def answer(self, seconds: float) -> Any:
        """Return the answer; the thread has ended then.

        Args:
            seconds: how long it may take, from the asking on.

        Raises:
            TimeoutError: there is none in that time.
            Unreachable: there is none that can be used.

        """
        import time

        self._ready.wait()
        if not self._answered.wait(self._started + seconds - time.monotonic()):
            raise TimeoutError
        if self._thread.ident is not None:
            self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self._answer

    def took(self) -> float:
        """Return the seconds from the asking to the answer, or to now if there is none yet."""
        import time

        return (self._ended or time.monotonic()) - self._started
