"""Hand a restorer another group.toml: by its arguments, and as a file in memory."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.phase.invocation import Invocation


def is_elf(path: str) -> bool:
    """Return whether a program is a binary, and no script: what a script runs may not get its open files."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def memory_file(name: str, content: bytes) -> str | None:
    """Return the path of a file in memory, which programs started from here can open; None: not to be had.

    Nothing of it is left behind: it is gone with the last process that has it.
    """
    try:
        descriptor = os.memfd_create(name, 0)
    except OSError:
        return None
    path = f"/proc/self/fd/{descriptor}"
    try:
        if os.write(descriptor, content) == len(content) and os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return path
    except OSError:
        pass
    os.close(descriptor)
    return None


def with_group(call: Invocation, path: str) -> tuple[str, ...]:
    """Return a call's arguments with another group.toml.

    The flag comes first and as one word, so that no flag of a fork can take it or its value for its own; and as
    the last one wins, every `-group` that is there already gets the path too.
    """
    rest = list(call.argv[call.at :])
    at = 0
    while at < len(rest) and rest[at] != "--":
        name, equals, _ = rest[at].removeprefix("-").removeprefix("-").partition("=")
        if rest[at].startswith("-") and name == "group":
            if equals:
                rest[at] = f"-group={path}"
            elif at + 1 < len(rest):
                at += 1
                rest[at] = path
        at += 1
    return (*call.argv[: call.at], f"-group={path}", *rest)
