"""The note beside analyzed.toml: what the wrapped analyzer leaves for the wrapped restorer, and a group for the latter.

It is a file of its own, because the detector rewrites analyzed.toml and drops what it doesn't know (lifecycle issue
1457: "carry this flag from the analyzed step"). It lies where every phase finds its other files, so it can also be the
group.toml that the restorer is given: the lifecycle ignores the key that it doesn't know.
"""

from __future__ import annotations

import os

from shim.errors import BrokenFile, MissingFile
from shim.layers import files, replacing, toml
from shim.layers.rights import AS_IT_IS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.layers.rights import Rights

NAME = "analyzed-shim.toml"
_COMMENT = b"# Left by analyzed-shim, for itself and for the restorer.\n"


def path_beside(analyzed: str) -> str:
    """Return the path of the note that belongs to an analyzed.toml."""
    return os.path.join(os.path.dirname(analyzed), NAME)


def leave(path: str, daemon: bool | None, rights: Rights = AS_IT_IS, group: bytes = b"") -> None:
    """Write the note, whole or not at all, readable by every user of the build.

    Args:
        path: where.
        daemon: whether this is a daemon build; None leaves that out.
        rights: with whose rights.
        group: a group.toml that it is to be, too.

    Raises:
        OSError: it couldn't be written; what was there before is still there.
        BrokenFile: the group has a key of the note's.

    """
    line = b"" if daemon is None else b"daemon = true\n" if daemon else b"daemon = false\n"
    content = _COMMENT + line + group
    if group:
        told = {} if daemon is None else {"daemon": daemon}
        if toml.parse(path, content.decode()) != {**told, **toml.parse(path, group.decode())}:
            raise BrokenFile(f"{path} can't be a note and a group.toml", "write group.toml as the detector does")
    replacing.replace(path, content, mode=0o644, rights=rights)


def read(path: str, rights: Rights = AS_IT_IS) -> bool | None:
    """Return what the note says, or None if there is none or it says nothing.

    Raises:
        BrokenFile: there is one, and it can't be read as a note.

    """
    try:
        data, _ = files.read(path, rights=rights)
    except MissingFile:
        return None
    for daemon in (True, False):  # as it is written, which needs no parser
        if data == _COMMENT + (b"daemon = true\n" if daemon else b"daemon = false\n"):
            return daemon
    daemon_or_other = toml.parse(path, toml.text_of(path, data)).get("daemon")
    if daemon_or_other is None or isinstance(daemon_or_other, bool):
        return daemon_or_other
    raise BrokenFile(f"{path}: daemon is not true or false", "remove it, the next analyzer writes it again")
