"""In a phase's place, or the command line?

The file that runs tells: under the name of a phase it is that phase's drop-in. This module and
what it imports for a wrapped phase stay away from everything heavy.
"""

from __future__ import annotations

import os
import sys

from shim.phase import invocation, process, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> int:
    """Run the shim, and return its exit code; where it wraps a phase it ends or becomes the phase instead."""
    name = os.path.basename(sys.argv[0])
    if name in invocation.WRAPPED:
        process.begin()
        environ = process.inherited_environment()
        real = environ.get(f"ANALYZED_SHIM_{name.upper()}") or f"{sys.argv[0]}.real"
        _end(wrap.drop_in(real, sys.argv, environ))
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"}.intersection(sys.argv[2:3]):
        process.begin()
        _end(wrap.run(sys.argv[2:], process.inherited_environment()))
    from shim.tools import cli  # typer costs six bare interpreter starts

    return cli.main()


def _end(code: int) -> NoReturn:
    """End at once: nothing is buffered, and taking apart what docker imported costs three bare starts."""
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
