"""Become the phase by exec, or be its transparent parent.

Signals are handled as in dumb-init (https://github.com/Yelp/dumb-init): all are blocked, and one loop waits for them.
What a key at the terminal sends reaches the whole foreground group by itself and is not sent twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from shim.errors import CannotRun, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

_CHANGED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # to be ignored, which a program would inherit
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)  # what asks a program to end
_NOT_FORWARDED = {
    *(signal.SIGKILL, signal.SIGSTOP),  # nobody can
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),  # faults of our own
    *_CHANGED_BY_PYTHON,
}
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_TO_THE_GROUP = (*_STOPPING, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGXCPU)
"""What the kernel sends to all of a group, or to each process by itself."""
_SENT_BY_KERNEL = 0x80  # `si_code` SI_KERNEL of sigaction(2)


def begin() -> None:
    """Make this process one that signals end as any program, process 1 too, and whose closed streams stay closed.

    Else what the shim opens would take their numbers, and the phase read or write it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getpid() == 1:
        for number in _ENDING:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, lambda number, _: os._exit(128 + number))
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open("/", os.O_RDONLY)  # is always there, takes the lowest free number, and is closed for the phase


def inherited_environment() -> dict[str, str]:
    """Return a copy of the environment as it was given to us.

    If no locale is set, the interpreter sets `LC_CTYPE` before any code of ours runs (PEP 538).
    """
    environ = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:
            if b"\0LC_CTYPE=" not in b"\0" + file.read():
                environ.pop("LC_CTYPE", None)
    except OSError:
        pass
    return environ


def find(program: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program; without a slash it is looked for in PATH. Raises NotFound: it isn't there."""
    if path := _executable(program, environ) or ("/" in program and os.path.exists(program) and program):
        return path
    name, equals, _ = program.partition("=")  # whose value may be a secret
    raise NotFound(f"{name}{'=…' if equals else ''} not found", "give the path of the real phase")


def is_program(word: str, environ: Mapping[str, str]) -> bool:
    """Return whether a word of a command line can be run."""
    return bool(_executable(word, environ))


def _executable(program: str, environ: Mapping[str, str]) -> str:
    directories = [""] if "/" in program else environ.get("PATH", os.defpath).split(os.pathsep)
    paths = (os.path.join(directory, program) if directory else program for directory in directories)
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def become(path: str, argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by a program; nothing of the shim is left. Raises CannotRun: it can't be run."""
    before = [signal.signal(number, signal.SIG_DFL) for number in _CHANGED_BY_PYTHON]
    try:
        os.execve(path, tuple(argv), environ)
    except OSError as problem:
        for number, handler in zip(_CHANGED_BY_PYTHON, before, strict=True):
            signal.signal(number, handler)  # a line to a pipe that nobody reads must not end us
        reasons = {errno.ENOENT: "its interpreter or loader was not found", errno.ENOEXEC: "not for this machine"}
        reason = reasons.get(problem.errno or 0, problem.strerror)
        raise CannotRun(f"{path} can't be run: {reason}", "give the path of the real phase") from None


class Ending:
    """How a program ended."""

    def __init__(self, status: int, interrupted: bool) -> None:
        """Take its status of wait(2), and whether we were sent a signal meanwhile that asks a program to end."""
        self.killed = os.WIFSIGNALED(status)
        self.code = 128 + os.WTERMSIG(status) if self.killed else os.WEXITSTATUS(status)
        """Its exit status, or 128 + n for the signal n."""
        self.failed_by_itself = bool(self.code) and not self.killed and not interrupted

    def __str__(self) -> str:
        """Say it in words."""
        return f"signal {self.code - 128}" if self.killed else f"exit status {self.code}"


def run(path: str, argv: Sequence[str], environ: Mapping[str, str]) -> Ending:
    """Run a program with our standard streams, hand it our signals, and wait for its end.

    By fork and exec: glibc's posix_spawn needs clone3, which older engines' seccomp profiles refuse.

    Raises OSError: no process can be started. Whatever else goes wrong, the program's end is waited for.
    """
    forwarded = signal.valid_signals() - _NOT_FORWARDED
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an ignored one would lose us the exit status
    before = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)
    try:
        child = os.fork()
        if child == 0:
            _exec_in_child(path, argv, environ, before)
        try:
            return _supervise(child, forwarded)
        except Exception:  # nothing may run beside it, and its status is lost if it can't be waited for
            with contextlib.suppress(OSError):
                return Ending(os.waitpid(child, 0)[1], interrupted=True)
            return Ending(CannotRun.exit_code << 8, interrupted=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exec_in_child(path: str, argv: Sequence[str], environ: Mapping[str, str], mask: set[int]) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        become(path, argv, environ)
    except CannotRun as problem:
        os.write(1, f"analyzed-shim: ERROR: {problem.with_tip}\n".encode(errors="backslashreplace"))
        os._exit(problem.exit_code)
    finally:
        os._exit(CannotRun.exit_code)


def _supervise(child: int, forwarded: set[signal.Signals]) -> Ending:
    interrupted = False
    while True:
        caught = signal.sigwaitinfo(forwarded)
        if caught.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return Ending(status, interrupted)
            continue
        interrupted = interrupted or caught.si_signo in _ENDING
        if caught.si_code != _SENT_BY_KERNEL or caught.si_signo not in _TO_THE_GROUP:
            try:
                os.kill(child, caught.si_signo)
            except PermissionError:  # it runs as another user, and we lack the right: let go
                pass
        if caught.si_signo in _STOPPING:
            _stop(caught.si_signo)


def _stop(number: int) -> None:
    """Stop as any program would by this signal.

    So the kernel decides: it discards the signal in an orphaned process group, where no shell could continue us
    (setpgid(2)), and for process 1. SIGSTOP would stop us for good there.
    """
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    signal.pthread_sigmask(signal.SIG_BLOCK, (number,))


def _reap(child: int) -> int | None:
    """Collect what ended, orphans too, which are ours as process 1; return our child's status if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status
