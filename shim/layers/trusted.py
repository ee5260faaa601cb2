"""A directory to whose path nobody but root could have added anything: what root may do there, root does by itself."""

from __future__ import annotations

import errno
import os
import stat

from shim.layers.rights import DIRECTORY

_LINK_OR_DIRECTORY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = 40
"""Symbolic links on a path, as many as the kernel follows."""


def open_directory(directory: str) -> int:
    """Open a directory to whose path nobody but root could have added anything.

    Each part is opened below the one before, so that nothing can be put in its place in between. A link counts as long
    as it is root's own, and lies where nobody else can replace it.

    Raises:
        OSError: somebody could have added something, or there are too many links.

    """
    parts = os.path.abspath(directory).split("/")[1:]
    descriptor, links = os.open("/", DIRECTORY), 0
    try:
        while True:
            parts = [part for part in parts if part not in ("", ".")]
            _check_trusted(os.fstat(descriptor), final=not parts)
            if not parts:
                return descriptor
            below = os.open(parts.pop(0), _LINK_OR_DIRECTORY, dir_fd=descriptor)
            about = os.fstat(below)
            if stat.S_ISLNK(about.st_mode):
                target = os.readlink("", dir_fd=below)
                os.close(below)
                links += 1
                if about.st_uid != 0 or links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                parts = target.split("/") + parts
                if not target.startswith("/"):
                    continue
                below = os.open("/", DIRECTORY)
            os.close(descriptor)
            descriptor = below
    except OSError:
        os.close(descriptor)
        raise


def _check_trusted(about: os.stat_result, final: bool) -> None:
    others_may_write = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    keeps_names = about.st_mode & stat.S_ISVTX and not final  # what is root's there can't be renamed by others
    if about.st_uid != 0 or not stat.S_ISDIR(about.st_mode) or (others_may_write and not keeps_names):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
