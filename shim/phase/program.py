"""Replace this process by a program.

Nearly every run of the shim ends here, so nothing is imported that isn't built in.
"""

from __future__ import annotations

import errno
import os

from shim.errors import CannotRun, NotThere

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping, Sequence
    from typing import NoReturn
else:
    import _signal  # `signal` wraps it in enums, at a third of a bare interpreter start

CHANGED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
"""The signals that the interpreter sets to be ignored, which a program would inherit."""
ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
"""What asks a program to end."""


def begin() -> None:
    """Make this process one that is ended by signals as any program is, and whose standard streams are what they are.

    Ctrl-C ends it rather than being a traceback; as process 1, to which the kernel doesn't send a signal that isn't
    handled, those that ask it to end do. If a stream is closed, nothing else can take its number: the phase, which
    still finds it closed, would read or write what the shim had opened for itself.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if os.getpid() == 1:
        for number in ENDING:
            if _signal.getsignal(number) == _signal.SIG_DFL:
                _signal.signal(number, lambda number, _: os._exit(128 + number))
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open("/", os.O_RDONLY)  # is always there, takes the lowest free number, and is closed for the phase


def inherited_environment() -> Mapping[str, str]:
    """Return the environment as it was given to us.

    If no locale is set, the interpreter sets `LC_CTYPE` for itself, before any of our code runs
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
    """Return the path of a program; without a slash it is looked for in PATH.

    Raises:
        NotThere: it was not found.

    """
    if "/" in program:
        if not os.path.exists(program):
            raise NotThere(f"{program} not found", "give the path of the real phase")
        return program
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or ".", program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotThere(f"{program} not found in PATH", "give the path of the real phase")


def try_to_become(program: str, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Replace this process by a program, and return only if that can't be done: whoever calls finds out why."""
    try:
        become(find(program, environ), tuple(argv), environ)
    except (NotThere, CannotRun):
        pass


def become(path: str, argv: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by a program; nothing of the shim is left.

    Raises:
        CannotRun: it can't be run.

    """
    before = [_signal.signal(number, _signal.SIG_DFL) for number in CHANGED_BY_PYTHON]
    try:
        os.execve(path, argv, environ)
    except OSError as problem:
        for number, handler in zip(CHANGED_BY_PYTHON, before, strict=True):
            _signal.signal(number, handler)  # a line to a pipe that nobody reads must not end us
        raise cannot_run(path, problem) from None


def is_same(path: str, other: str) -> bool:
    """Return whether two paths are the same file, as far as both are there."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def cannot_run(path: str, problem: OSError) -> CannotRun:
    """Return the error for a program that the kernel refuses to start, and why."""
    tip = "give the path of the real phase"
    if problem.errno == errno.ENOENT:
        return CannotRun(f"{path} can't be run: its interpreter or loader was not found", tip)
    if problem.errno == errno.ENOEXEC:
        return CannotRun(f"{path} can't be run: it is not a program for this machine", tip)
    return CannotRun(f"{path} can't be run: {problem.strerror}", tip)
