"""What stands before a phase, and what stands in its place."""

from __future__ import annotations

import pathlib
import sys

from tests.support.processes import program

LAUNCHERS = {
    "env": ("env", "A=b"),
    "env, emptied": ("env", "-i", "--", "CNB_PLATFORM_API=0.11"),
    "env, a phase's name": ("env", "RESTORER=/cnb/lifecycle/restorer"),
    "nice": ("nice", "-n", "1"),
    "timeout": ("timeout", "60"),
    "timeout, with options": ("timeout", "--signal=INT", "--kill-after", "5", "60"),
    "nohup": ("nohup",),
    "setsid": ("setsid", "--wait"),
    "setpriv": ("setpriv", "--no-new-privs"),
    "stdbuf": ("stdbuf", "-oL"),
    "ionice": ("ionice", "-c3"),
    "chroot": ("chroot", "/"),
    "flock": ("flock", "/dev/null"),
    "bash": ("bash", "-c", 'exec "$@"', "--"),
    "sh, as its child": ("sh", "-c", '"$@"; exit $?', "sh"),
    "python": (sys.executable, "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"),
    "one of another": ("env", "A=b", "nice", "timeout", "60", "env", "C=d"),
    "one that waits for a host": ("LAUNCHERS/wait-launcher", "builder", "--"),
    "one that closes what it has open": ("LAUNCHERS/close-launcher",),
    "one that knows its own options only": ("LAUNCHERS/strict-launcher", "--verbose"),
}

CLOSES = {
    "python": "#!{python}\nimport subprocess, sys\nsys.exit(subprocess.run([{real!r}, *sys.argv[1:]]).returncode)\n",
    "python, by exec": "#!{python}\nimport os, sys\nos.closerange(3, 1000)\n"
    "os.execv({real!r}, [{real!r}, *sys.argv[1:]])\n",
    "a shell loop": "#!/bin/bash\nfor fd in /proc/self/fd/*; do n=${{fd##*/}}; "
    '[ $n -le 2 ] || [ $n = 255 ] || eval "exec $n>&-"; done\n{real} "$@"\n',
    "a shell": '#!/bin/sh\nexec {real} "$@"\n',
    "a fork": "#!{python}\nimport os, sys\n"
    "rest = [a for a in sys.argv[1:] if a != '-skip-chown']\nos.execv({real!r}, [{real!r}, *rest])\n",
    "one that looks at its first argument": '#!/bin/sh\ncase $1 in -*) exec {real} "$@" ;; *) exit 64 ;; esac\n',
}
"""Scripts that start the real restorer."""


def lay_out(directory: pathlib.Path) -> pathlib.Path:
    """Write the launchers that a machine doesn't have; in the others' place `LAUNCHERS` is the directory."""
    directory.mkdir()
    program(directory / "wait-launcher", '#!/bin/sh\n[ "$2" = -- ] || exit 64\nshift 2\nexec "$@"\n')
    program(
        directory / "close-launcher",
        f"#!{sys.executable}\nimport subprocess, sys\nsys.exit(subprocess.run(sys.argv[1:]).returncode)\n",
    )
    program(
        directory / "strict-launcher",
        '#!/bin/sh\n[ "$1" = --verbose ] || exit 64\nshift\ncase $1 in -*) exit 64 ;; esac\nexec "$@"\n',
    )
    return directory
