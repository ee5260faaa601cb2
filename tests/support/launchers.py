"""What stands before a phase, and what stands in its place."""

from __future__ import annotations

import os
import pathlib
import sys

from tests.support.build import Build
from tests.support.processes import program

LAUNCHERS = {
    "env": ("env", "A=b"),
    "env, with a phase's name": ("env", "RESTORER=/cnb/lifecycle/restorer"),
    "env, by its path": ("/usr/bin/env", "A=b", "C="),
    "env, with dashes": ("env", "--", "A=b"),
    "nice": ("nice", "-n", "1"),
    "timeout, with options": ("timeout", "--signal=INT", "--kill-after", "5", "60"),
    "setsid": ("setsid", "--wait"),
    "setpriv": ("setpriv", "--no-new-privs"),
    "xargs": ("xargs", "-a", "/dev/null"),
    "bash": ("bash", "-c", 'exec "$@"', "--"),
    "sh, as its child": ("sh", "-c", '"$@"; exit $?', "sh"),
    "one of another": ("env", "A=b", "nice", "timeout", "60", "env", "C=d"),
    "one that waits for a host": ("LAUNCHERS/wait-launcher", "builder", "--"),
    "one that closes what it has open": ("LAUNCHERS/close-launcher",),
    "one that knows its own options only": ("LAUNCHERS/strict-launcher", "--verbose"),
}
SEEN_THROUGH = {"none", "env", "env, with a phase's name", "env, by its path"}
"""Those behind which it is known which daemon the phase gets."""

CLOSES = {
    "python": "#!{python}\nimport subprocess, sys\nsys.exit(subprocess.run([{real!r}, *sys.argv[1:]]).returncode)\n",
    "a shell": '#!/bin/sh\nexec {real} "$@"\n',
    "a fork": "#!{python}\nimport os, sys\n"
    "rest = [a for a in sys.argv[1:] if a != '-skip-chown']\nos.execv({real!r}, [{real!r}, *rest])\n",
    "one that looks at its first argument": "#!/bin/sh\ncase $1 in -*|'') exec {real} \"$@\" ;; *) exit 64 ;; esac\n",
}
"""Scripts that start the real restorer."""


def lay_out(directory: pathlib.Path) -> pathlib.Path:
    """Write the launchers that a machine doesn't have; in the others' place `LAUNCHERS` is the directory."""
    directory.mkdir()
    program(directory / "wait-launcher", '#!/bin/sh\n[ "$2" = -- ] || exit 64\nshift 2\nexec "$@"\n')
    closing = f"#!{sys.executable}\nimport subprocess, sys\nsys.exit(subprocess.run(sys.argv[1:]).returncode)\n"
    program(directory / "close-launcher", closing)
    strict = '#!/bin/sh\n[ "$1" = --verbose ] || exit 64\nshift\ncase $1 in -*) exit 64 ;; esac\nexec "$@"\n'
    program(directory / "strict-launcher", strict)
    return directory


def drop_in(path: pathlib.Path) -> pathlib.Path:
    """Write a drop-in of a phase as `install` does, but for an interpreter of its own."""
    start = f"import sys; sys.path.insert(0, {os.getcwd()!r}); from shim.__main__ import drop_in; drop_in(__file__)"
    return program(path, f"#!{sys.executable}\n{start}\n")


def stand_in(build: Build, kind: str, name: str) -> pathlib.Path:
    """Write a script of some kind that starts the real restorer."""
    text = CLOSES[kind].format(python=sys.executable, real=str(build.lifecycle / "restorer"))
    return program(build.directory / name, text)
