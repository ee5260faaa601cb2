"""What a launcher before a phase changes of what the phase sees: its environment and its root."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _is_assignment(argument: str) -> bool:
    name, equals, _ = argument.partition("=")
    return bool(equals) and name.isidentifier()


def behind_env(launcher: Sequence[str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment that `env` as a launcher leaves (https://www.gnu.org/software/coreutils/env)."""
    changed = dict(environ)
    at = 0
    while at < len(launcher):
        at += 1
        if os.path.basename(launcher[at - 1]) != "env":
            continue
        while at < len(launcher):
            word, following = launcher[at], launcher[at + 1 : at + 2]
            if word in ("-i", "-", "--ignore-environment"):
                changed.clear()
            elif word in ("-u", "--unset") and following:
                changed.pop(following[0], None)
                at += 1
            elif word.startswith(("-u", "--unset=")):
                changed.pop(word.removeprefix("--unset=").removeprefix("-u"), None)
            elif _is_assignment(word):
                name, _, changed[name] = word.partition("=")
            elif not word.startswith("-"):
                break
            at += 1
    return changed


def behind_chroot(launcher: Sequence[str]) -> str:
    """Return the root that `chroot` as a launcher leaves (https://www.gnu.org/software/coreutils/chroot)."""
    for at, word in enumerate(launcher):
        if os.path.basename(word) == "chroot":
            return next((root for root in launcher[at + 1 :] if not root.startswith("-")), "/")
    return "/"
