"""A drop-in, `run`, or the command line?

The program's name decides: under the name of a phase it is that phase's drop-in. Most phases are execed at once, and
nothing is imported for them but what that takes.
"""

from __future__ import annotations

import os
import sys

from shim.phase import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

PHASES = ("analyzer", "restorer", "exporter")


def main() -> int:
    """Run the shim, and return its exit code; if it wraps a phase it execs it or ends instead."""
    name = os.path.basename(sys.argv[0])
    if name in PHASES:
        program.begin()
        environ = program.inherited_environment()
        real = environ.get(f"ANALYZED_SHIM_{name.upper()}") or f"{sys.argv[0]}.real"
        if _has_nothing_to_do(sys.argv[1:], environ) and not program.is_same(real, sys.argv[0]):
            program.try_to_become(real, sys.argv, environ)
        from shim.phase import start

        _end(start.drop_in(real, sys.argv, environ))
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"}.intersection(sys.argv[2:3]):
        program.begin()
        environ = program.inherited_environment()
        if sys.argv[2:3] == ["--"] and sys.argv[3:] and _has_nothing_to_do(sys.argv[3:], environ):
            program.try_to_become(sys.argv[3], sys.argv[3:], environ)
        from shim.phase import start

        _end(start.run(sys.argv[2:], environ))
    from shim.tools import cli  # typer costs six bare interpreter starts

    return cli.main()


def _has_nothing_to_do(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether the Platform API is surely neither 0.10 nor 0.11, and nobody wants to hear about it."""
    api = environ.get("CNB_PLATFORM_API", "")
    if "10" in api or "11" in api or environ.get("ANALYZED_SHIM_REPORT"):
        return False
    level = environ.get("CNB_LOG_LEVEL", "").lower()
    return level != "debug" and not any("CNB_" in word or "debug" in word.lower() for word in arguments)


def _end(code: int) -> NoReturn:
    """End at once: nothing is buffered, and taking apart what was imported costs a bare start."""
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
