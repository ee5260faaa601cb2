"""Be the transparent parent of a program.

Signals are handled as in dumb-init (https://github.com/Yelp/dumb-init): all are blocked, and one loop waits for them.
What a key at the terminal sends reaches the whole foreground group by itself and is not sent twice.
"""

from __future__ import annotations

import errno
import os

from shim.errors import CannotStart
from shim.phase.program import CHANGED_BY_PYTHON, ENDING, cannot_run
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
else:
    import _signal  # as in program.py

_NOT_FORWARDED = frozenset(
    getattr(_signal, name)
    for name in (
        *("SIGKILL", "SIGSTOP"),  # nobody can
        *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"),  # a fault of our own
        *("SIGPIPE", "SIGXFSZ"),
    )
)
_STOPPING = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
_TO_THE_GROUP = (*_STOPPING, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGWINCH, _signal.SIGXCPU)
"""What the kernel sends to all of a group, or to each process by itself."""
_SENT_BY_KERNEL = 0x80
"""`si_code` SI_KERNEL of sigaction(2)."""


class Ending(Record):
    """How a program ended."""

    code: int
    """Its exit status, or 128 + n for the signal n."""
    killed: bool
    interrupted: bool = False
    """Whether we were sent a signal meanwhile that asks a program to end."""

    def __str__(self) -> str:
        """Say it in words."""
        return f"signal {self.code - 128}" if self.killed else f"exit status {self.code}"


def run(path: str, argv: tuple[str, ...], environ: Mapping[str, str], meanwhile: Callable[[], None]) -> Ending:
    """Run a program with our standard streams, hand it our signals, and wait for its end.

    Args:
        path: the program.
        argv: its arguments, its own name first.
        environ: its environment.
        meanwhile: called once it runs; it mustn't block.

    Raises:
        CannotRun: it can't be run.
        CannotStart: there is no room for another process.

    """
    forwarded = _forwarded()
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # an ignored one would lose us the exit status
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, forwarded)
    try:
        try:
            child = os.posix_spawn(path, argv, environ, setsigmask=before, setsigdef=CHANGED_BY_PYTHON)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.ENOMEM):
                raise CannotStart(f"no process can be started: {problem.strerror}", "raise the limit") from None
            raise cannot_run(path, problem) from None
        meanwhile()
        interrupted = False
        while True:
            signal = _signal.sigwaitinfo(forwarded)
            if signal.si_signo == _signal.SIGCHLD:
                ending = _reap(child)
                if ending is not None:
                    return ending.but(interrupted=interrupted)
                continue
            interrupted = interrupted or signal.si_signo in ENDING
            if signal.si_code != _SENT_BY_KERNEL or signal.si_signo not in _TO_THE_GROUP:
                os.kill(child, signal.si_signo)
            if signal.si_signo in _STOPPING:
                _stop(signal.si_signo)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def _stop(number: int) -> None:
    """Stop as any program would by this signal.

    So the kernel decides: it discards the signal in an orphaned process group, where no shell could continue us
    (setpgid(2)), and for process 1. SIGSTOP would stop us for good there.
    """
    os.kill(os.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (number,))


def _forwarded() -> set[_signal.Signals]:
    return _signal.valid_signals() - _NOT_FORWARDED


def _reap(child: int) -> Ending | None:
    """Collect what ended, orphans too, which are ours where we are process 1; return our child's ending."""
    ending = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ending
        if pid == 0:
            return ending
        if pid == child:
            killed = os.WIFSIGNALED(status)
            ending = Ending(
                code=128 + os.WTERMSIG(status) if killed else os.WEXITSTATUS(status),
                killed=killed,
            )
