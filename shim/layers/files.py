"""Reading small files that belong to somebody else; `replacing` writes them.

The layers directory belongs to the CNB user, who ran other people's buildpacks in it. So nothing is opened through a
link, nothing but a regular file is read, and no more of it than can be meant. All is done below a descriptor of the
directory (see `rights`).
"""

from __future__ import annotations

import errno
import os
import stat

from shim.errors import BrokenFile, MissingFile
from shim.layers.rights import AS_IT_IS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.layers.rights import Rights

LIMIT = 16 << 20
"""Bytes of a file that are read at most; a real analyzed.toml has up to 100,000."""
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def read(path: str, limit: int = LIMIT, rights: Rights = AS_IT_IS) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes, and what `fstat` says of it.

    Args:
        path: the file.
        limit: bytes that it may have.
        rights: with whose rights; if they are another user's, the file must have no other name, and be that user's,
            root's, or one that the user may write.

    Raises:
        MissingFile: it was not found.
        BrokenFile: it can't be read, or isn't such a file.

    """

    def do(directory: int, name: str, user: Rights | None) -> tuple[bytes, os.stat_result]:
        descriptor = os.open(name, READ, dir_fd=directory)
        try:
            about = os.fstat(descriptor)
            _refuse(path, about, user, limit)
            return _read_all(descriptor, about.st_size, limit), about
        finally:
            os.close(descriptor)

    try:
        return rights.act(path, do)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(
            f"{path} not found", "pass --layers or --analyzed, or run the preceding phase first"
        ) from None
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise BrokenFile(f"{path} is a symbolic link", "put the file itself there") from None
        raise BrokenFile(
            f"{path} can't be read: {problem.strerror}", "check its owner and mode, and the disk"
        ) from None


def _refuse(path: str, about: os.stat_result, user: Rights | None, limit: int) -> None:
    """Refuse what can't be meant, and what somebody may have planted."""
    if not stat.S_ISREG(about.st_mode):
        raise BrokenFile(f"{path} is not a regular file", "put the file itself there")
    if user is not None and about.st_nlink > 1:
        raise BrokenFile(f"{path} has another name (a hard link), so it may be planted", "put a file of its own there")
    if user is not None and about.st_uid not in (0, user.uid) and not _may_write(about, user):
        raise BrokenFile(
            f"{path} belongs to user {about.st_uid}, and user {user.uid} may not write it, so it may be planted",
            "give it to the user that the phases drop to",
        )
    if about.st_size > limit:
        raise BrokenFile(
            f"{path} has {about.st_size} bytes, more than the {limit} that are read", "check what wrote it"
        )


def _may_write(about: os.stat_result, user: Rights) -> bool:
    by_group = about.st_mode & stat.S_IWGRP and about.st_gid == user.gid
    return bool(by_group or about.st_mode & stat.S_IWOTH)


def _read_all(descriptor: int, expected: int, limit: int) -> bytes:
    data = os.read(descriptor, min(expected, limit) + 1)
    while len(data) <= limit:
        more = os.read(descriptor, limit + 1 - len(data))
        if not more:
            return data
        data += more
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
