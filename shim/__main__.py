"""A drop-in, `run`, or the command line? Most phases are execed at once, and nothing is imported that isn't needed."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from shim.call import Call

    Start = tuple[Call, str, Mapping[str, str]]
    """A phase's call, what is started for it, and the shim's own options."""


def main() -> int:
    """Run the command line, and return its exit code."""
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"}.intersection(sys.argv[2:3]):
        _start(_read_run)
    from shim import cli  # typer costs eight bare interpreter starts

    return cli.main()


def drop_in(file: str) -> NoReturn:
    """Run as a drop-in replacement for a phase: the real one is NAME.real beside it.

    Args:
        file: the drop-in's path. By whatever link it was called, its own name is the phase.

    """
    _start(lambda environ: _read_drop_in(os.path.realpath(file), environ))


def _read_run(environ: Mapping[str, str]) -> Start:
    """Read `analyzed-shim run [OPTIONS] -- [LAUNCHER...] PHASE [ARG]...`."""
    from shim import call, process
    from shim.errors import WrongUse

    options, words = call.split(sys.argv[2:])
    if not words:
        raise WrongUse("no phase to run", "analyzed-shim run [OPTIONS] -- [LAUNCHER...] PHASE [ARG]...")
    read = call.read(words, environ, lambda word: process.is_program(word, environ), options.get("phase", ""))
    return read, process.find(words[0], environ), options


def _read_drop_in(own: str, environ: Mapping[str, str]) -> Start:
    from shim.call import Call
    from shim.errors import CannotRun, NotFound

    phase = os.path.basename(own)
    variable = f"ANALYZED_SHIM_{phase.upper()}"
    real = environ.get(variable) or f"{own}.real"
    if not os.path.exists(real):
        raise NotFound(f"{real} not found, the real {phase}", f"put it there, or set {variable} to its path")
    if os.path.samefile(real, own):
        raise CannotRun(f"{real} is the shim itself", f"set {variable} to the path of the real {phase}")
    return Call([own, *sys.argv[1:]], 0, phase, environ), real, {}


def _start(read: Callable[[Mapping[str, str]], Start]) -> NoReturn:
    """Exec the phase if there is nothing to do and nobody wants to hear why; else wrap it."""
    from shim import process
    from shim.errors import ShimError
    from shim.log import Log
    from shim.nothing import nothing_to_do

    process.begin()
    environ = process.inherited_environment()
    log = Log(environ, {})
    try:
        call, path, options = read(environ)
        log = Log(call.variables, call.flags)
        wants_to_hear = log.level == "debug" or "report" in options or environ.get("ANALYZED_SHIM_REPORT")
        if not wants_to_hear and nothing_to_do(call)[0]:
            process.become(path, call.argv, call.environ)
        from shim.wrap import wrap

        code = wrap(call, path, options, log)
    except ShimError as problem:
        log.write("error", problem.with_tip)
        code = problem.exit_code
    os._exit(code)  # nothing is buffered, and taking apart what was imported takes a bare start


if __name__ == "__main__":
    sys.exit(main())
