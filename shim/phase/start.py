"""Start a wrapped phase: `run` and the drop-ins. The path that most builds take ends here, with an exec."""

from __future__ import annotations

import os

from shim.errors import BrokenFile, CannotRun, MissingFile, NotThere, ShimError, WrongUse
from shim.layers import files
from shim.layers.extensions import surely_has_none
from shim.phase import invocation, program
from shim.phase.log import log_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.phase.invocation import Invocation
    from shim.phase.log import Log


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `analyzed-shim run [OPTIONS] -- [LAUNCHER...] PHASE [ARG]...`, and return the exit code.

    Args:
        arguments: what stands behind `run`.
        environ: the environment, which the phase gets as it is.

    """

    def is_program(name: str) -> bool:
        try:
            path = program.find(name, environ)
        except NotThere:
            return False
        return os.path.isfile(path) and os.access(path, os.X_OK)

    log = log_for(environ, {})
    try:
        options: Mapping[str, str] = {}
        rest = list(arguments[1:])
        if arguments[:1] != ["--"]:
            from shim.phase import settings

            options, rest = settings.split(arguments)
        if not rest:
            raise WrongUse("no phase to run", "analyzed-shim run [OPTIONS] -- [LAUNCHER...] PHASE [ARG]...")
        call = invocation.read(rest, environ, is_program)
        log = log_for(call.variables, call.flags)
        return _start(call, program.find(call.program, environ), options, log)
    except ShimError as problem:
        return _failed(problem, log)


def drop_in(real: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run as a drop-in replacement for a phase; if the shim execs it, this does not return.

    Args:
        real: the path of the real phase.
        argv: the arguments, the path of the drop-in first; all of them are the phase's.
        environ: the environment, which the phase gets as it is.

    """
    call = invocation.drop_in(real, argv, environ)
    log = log_for(call.variables, call.flags)
    try:
        if not os.path.exists(real):
            raise NotThere(
                f"{real} not found, the real {call.phase}",
                f"put it there, or set ANALYZED_SHIM_{call.phase.upper()} to its path",
            )
        if os.path.samefile(real, argv[0]):
            raise CannotRun(
                f"{real} is the shim itself", f"set ANALYZED_SHIM_{call.phase.upper()} to the real phase's path"
            )
        return _start(call, real, {}, log)
    except ShimError as problem:
        return _failed(problem, log)


def _failed(problem: ShimError, log: Log) -> int:
    log.write("error", problem.with_tip, problem.outcome)
    return problem.exit_code


def _start(call: Invocation, path: str, options: Mapping[str, str], log: Log) -> int:
    said = log.level == "debug" or "report" in options or call.environ.get("ANALYZED_SHIM_REPORT")
    if not said and _has_nothing_to_do(call):
        program.become(path, call.argv, call.environ)
    import gc

    gc.disable()  # a thirtieth of a repair, in a process that ends before it would be worth it
    from shim.phase.wrap import wrap  # all the rest, which costs more than the start of the interpreter

    return wrap(call, path, options, log)


def _has_nothing_to_do(call: Invocation) -> bool:
    """Return whether the first rows surely hold, without a table: nothing is to be looked at but the group."""
    if call.phase == "other" or call.about or call.api != "affected":
        return True
    if call.phase != "restorer" or call.root != "/":
        return False
    try:
        data, _ = files.read(call.group, rights=call.rights)
        return surely_has_none(data)
    except (MissingFile, BrokenFile):
        return False
