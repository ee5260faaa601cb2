"""What a launcher before a phase changes of what the phase sees: its environment, its root and where it stands."""

from __future__ import annotations

import os

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WITH_VALUE = ("--unset", "--chdir", "-u", "-C")
"""Options of `env`, whose value may follow."""


class Behind(Record):
    """What a phase sees behind its launchers."""

    variables: Mapping[str, str]
    root: str = "/"
    directory: str = ""
    """What relative paths begin at, absolute; empty: where the launcher was started."""


def behind(launcher: Sequence[str], environ: Mapping[str, str]) -> Behind:
    """Return what `env` and `chroot` as launchers leave (https://www.gnu.org/software/coreutils/manual/coreutils.html).

    Args:
        launcher: all that stands before the phase.
        environ: the environment of the first.

    """
    seen = Behind(variables=environ)
    for at, word in enumerate(launcher):
        name, following = "" if "=" in word else os.path.basename(word), launcher[at + 1 :]
        if name == "env":
            seen = _behind_env(following, seen)
        elif name == "chroot":
            root = next((root for root in following if not root.startswith("-")), "/")
            seen = seen.but(root=root, directory=seen.directory if "--skip-chdir" in following else "/")
    return seen


def _behind_env(arguments: Sequence[str], seen: Behind) -> Behind:
    changed, directory = dict(seen.variables), seen.directory
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        option = next((option for option in _WITH_VALUE if word.startswith(option)), None)
        if word in ("-i", "-", "--ignore-environment"):
            changed.clear()
        elif option:
            value = word.removeprefix(option).removeprefix("=") or next(words, "")
            if option in ("--unset", "-u"):
                changed.pop(value, None)
            else:
                directory = os.path.join(directory or _here(), value)
        elif equals and name.isidentifier():
            changed[name] = value
        elif not word.startswith("-"):
            break
    return seen.but(variables=changed, directory=directory)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed, and nothing relative is found from there
        return ""
