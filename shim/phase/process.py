"""The operating system: become a program, or be its transparent parent; hand a file over without a file.

Signals are handled as in dumb-init (https://github.com/Yelp/dumb-init): all are blocked, and one
loop waits for them. What a key at the terminal sends reaches the whole foreground group by itself
and isn't sent twice.
"""

from __future__ import annotations

import errno
import os

from shim.errors import CannotRun, CannotStart, NotThere
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from typing import NoReturn
else:
    import _signal  # `signal` wraps it in enums, at a third of a bare interpreter start

_CHANGED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
"""The signals that the interpreter sets to be ignored, which a program would inherit."""
_NOT_FORWARDED = frozenset(
    getattr(_signal, name)
    for name in (
        *("SIGKILL", "SIGSTOP"),  # nobody can
        *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"),  # a fault of our own
        *("SIGPIPE", "SIGXFSZ"),
    )
)
_STOPPING = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
_ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
"""What whoever wants a program to end sends it."""
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


def begin() -> None:
    """Make this process one that is ended by signals as any program is, and whose standard streams are what they are.

    Ctrl-C ends it rather than being a traceback; as process 1, to which the kernel doesn't send a signal that isn't
    handled, those that ask it to end do. Where a stream is closed, nothing else can become it: the phase, which still
    finds it closed, would read or write what the shim had opened for itself.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if os.getpid() == 1:
        for number in _ENDING:
            if _signal.getsignal(number) == _signal.SIG_DFL:
                _signal.signal(number, lambda number, _: os._exit(128 + number))
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open("/", os.O_RDONLY)  # is always there, takes the lowest free number, and is closed for the phase


def inherited_environment() -> Mapping[str, str]:
    """Return the environment as it was given to us.

    Where no locale is set, the interpreter sets `LC_CTYPE` for itself, before any of our code runs
    (https://peps.python.org/pep-0538/), and a phase would inherit it.
    """
    if "LC_CTYPE" not in os.environ:
        return os.environ
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read().split(b"\0")
    except OSError:
        return os.environ
    if any(variable.startswith(b"LC_CTYPE=") for variable in given):
        return os.environ
    return {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}


def find(program: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program, looked for in PATH where it has no slash.

    Raises:
        NotThere: it isn't there.

    """
    if "/" in program:
        if not os.path.exists(program):
            raise NotThere(f"{program} isn't there", "give the path of the real phase")
        return program
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or ".", program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotThere(f"{program} isn't in PATH", "give the path of the real phase")


def become(path: str, argv: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by a program; nothing of the shim is left.

    Raises:
        CannotRun: it can't be run.

    """
    for number in _CHANGED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execve(path, argv, environ)
    except OSError as problem:
        raise _cannot_run(path, problem) from None


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
            child = os.posix_spawn(path, argv, environ, setsigmask=before, setsigdef=_CHANGED_BY_PYTHON)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.ENOMEM):
                raise CannotStart(f"no process can be started: {problem.strerror}", "raise the limit") from None
            raise _cannot_run(path, problem) from None
        meanwhile()
        interrupted = False
        while True:
            signal = _signal.sigwaitinfo(forwarded)
            if signal.si_signo == _signal.SIGCHLD:
                ending = _reap(child)
                if ending is not None:
                    return ending.but(interrupted=interrupted)
                continue
            interrupted = interrupted or signal.si_signo in _ENDING
            if signal.si_code != _SENT_BY_KERNEL or signal.si_signo not in _TO_THE_GROUP:
                os.kill(child, signal.si_signo)
            if signal.si_signo in _STOPPING:
                os.kill(os.getpid(), _signal.SIGSTOP)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def without_signals(start: Callable[[], None]) -> None:
    """Start a thread that is given no signal.

    Else the kernel may hand it the end of a phase while `run` isn't waiting yet, where an unhandled SIGCHLD is lost.

    Args:
        start: what starts it.

    """
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _forwarded())
    try:
        start()
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


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


def memory_file(name: str, content: bytes) -> str | None:
    """Return the path of a file in memory, which programs started from here can open; None: not to be had.

    Nothing of it is left behind: it is gone with the last process that has it.
    """
    try:
        descriptor = os.memfd_create(name, 0)
    except OSError:
        return None
    path = f"/proc/self/fd/{descriptor}"
    try:
        if os.write(descriptor, content) == len(content) and os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return path
    except OSError:
        pass
    os.close(descriptor)
    return None


def _cannot_run(path: str, problem: OSError) -> CannotRun:
    tip = "give the path of the real phase"
    if problem.errno == errno.ENOENT:
        return CannotRun(f"{path} can't be run: its interpreter or loader isn't there", tip)
    if problem.errno == errno.ENOEXEC:
        return CannotRun(f"{path} can't be run: it is no program of this machine", tip)
    return CannotRun(f"{path} can't be run: {problem.strerror}", tip)
