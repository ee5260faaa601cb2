"""The note that the wrapped analyzer leaves for the wrapped restorer: is this a daemon build?

It is a file of its own, because the detector rewrites analyzed.toml and drops what it doesn't know
(lifecycle issue 1457: "carry this flag from the analyzed step").
"""

from __future__ import annotations

import os

from shim.errors import BrokenFile, MissingFile
from shim.layers import files
from shim.layers.rights import AS_IT_IS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.layers.rights import Rights

NAME = "analyzed-shim.toml"
_LIMIT = 64 * 1024
_COMMENT = b"# Left by analyzed-shim, for itself and for the restorer.\n"


def path_beside(analyzed: str) -> str:
    """Return the path of the note that belongs to an analyzed.toml."""
    return os.path.join(os.path.dirname(analyzed), NAME)


def leave(path: str, daemon: bool | None, rights: Rights = AS_IT_IS, group: bytes = b"") -> None:
    """Write the note, whole or not at all, readable by every user of the build.

    Raises:
        OSError: it couldn't be written; what was there before is still there.

    """
    line = b"" if daemon is None else b"daemon = true\n" if daemon else b"daemon = false\n"
    files.replace(path, _COMMENT + line + group, mode=0o644, rights=rights)


def read(path: str, rights: Rights = AS_IT_IS) -> bool | None:
    """Return what the note says, or None where there is none.

    Raises:
        BrokenFile: there is one, and it can't be read as a note.

    """
    try:
        data, _ = files.read(path, _LIMIT, rights)
        says = files.parse(path, data).get("daemon")
    except MissingFile:
        return None
    if says is None:
        return None
    if not isinstance(says, bool):
        raise BrokenFile(f"{path} doesn't say daemon = true or false", "remove it, the next analyzer writes it anew")
    return says
