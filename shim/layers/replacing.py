"""Replacing small files that belong to somebody else, and writing those that a person named.

A new file is never an old one. "Whole at every moment" is meant for whoever reads the file while the shim runs or is
killed. It does not mean a power cut: nothing is synced to the disk, as the layers directory ends with its build.
"""

from __future__ import annotations

import errno
import fcntl
import os

from shim.layers.files import READ
from shim.layers.rights import AS_IT_IS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.layers.rights import Rights

_LEFT = ".analyzed-shim"
"""How the names of files end that are about to take another's place."""


def replace(path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None, rights: Rights = AS_IT_IS) -> None:
    """Put new content in a file's place in one step, so that a reader finds the old or the new one, whole.

    Args:
        path: the file; what is there is replaced, not followed or written to.
        data: the new content.
        mode: its permission bits.
        owner: user and group ID that it must have; by default whoever writes it.
        rights: with whose rights.

    Raises:
        OSError: it couldn't be done; what was there before is still there, and nothing else.

    """
    rights.act(path, lambda directory, name, _: _replace(directory, name, data, mode, owner))


def _replace(directory: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    _sweep(directory)
    temporary = f".{name}.{os.urandom(8).hex()}{_LEFT}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:
            _lock(descriptor)
            file.write(data)
            file.flush()
            about = os.fstat(descriptor)
            if owner is not None and owner != (about.st_uid, about.st_gid):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=directory)
        except FileNotFoundError:
            pass
        raise


def remove(path: str, rights: Rights = AS_IT_IS) -> None:
    """Remove a file.

    Raises:
        OSError: it couldn't be removed.

    """
    rights.act(path, lambda directory, name, _: os.unlink(name, dir_fd=directory))


def _sweep(directory: int) -> None:
    """Remove what killed processes left in a directory."""
    try:
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:  # it may be written but not listed
        return
    try:
        for name in os.listdir(listing):
            if name.startswith(".") and name.endswith(_LEFT) and _is_left(directory, name):
                try:
                    os.unlink(name, dir_fd=directory)
                except OSError:  # what can't be swept harms nobody
                    pass
    finally:
        os.close(listing)


def _is_left(directory: int, name: str) -> bool:
    """Return whether whoever made a temporary file is gone: who lives holds a lock on it."""
    try:
        descriptor = os.open(name, READ, dir_fd=directory)
    except OSError:
        return False
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file until it is closed, or the process is gone, and return whether it could be."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system has no locks, so nobody sweeps there
        return False
    return True


def overwrite(path: str, old: bytes, new: bytes, rights: Rights = AS_IT_IS) -> None:
    """Write new content into the same file, if it can't be replaced: it is a mount of its own, or the disk is full.

    Line ends make the shorter of both as long as the other; TOML doesn't see them. So first the file gets its room,
    which is the step that a full disk refuses. Then one call writes the content into it, and a reader before or after
    finds the old or the new file, whole. What is too much is cut off last.

    Args:
        path: the file.
        old: its content, put back if the new one can't be written.
        new: its new content.
        rights: with whose rights.

    Raises:
        OSError: it couldn't be done; the old content is there. Also if the file has another name, whose content
            would change with it.

    """
    rights.act(path, lambda directory, name, _: _overwrite(directory, name, old, new))


def _overwrite(directory: int, name: str, old: bytes, new: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if os.fstat(descriptor).st_nlink != 1:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        length = len(old)
        try:
            _write_at(descriptor, b"\n" * (len(new) - len(old)), len(old))
            try:
                _write_at(descriptor, new.ljust(len(old), b"\n"), 0)
                length = len(new)
            except OSError:
                os.pwrite(descriptor, old, 0)
                raise
        finally:
            os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    if os.pwrite(descriptor, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write(path: str, data: bytes, rights: Rights = AS_IT_IS) -> None:
    """Write content to a file, a pipe or a terminal that a person named; a pipe that nobody reads is not waited for.

    Acting as a user, links are that user's to follow; acting as root for one, nothing is followed.

    Raises:
        OSError: it couldn't be written.

    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

    def do(directory: int, name: str, user: Rights | None) -> None:
        follow = os.O_NOFOLLOW if rights.uid and user is None else 0
        with open(os.open(name, flags | follow, 0o666, dir_fd=directory), "wb") as file:
            file.write(data)

    stream = _stream(path)
    if stream is None:
        rights.act(path, do)
        return
    while data:
        data = data[os.write(stream, data) :]


def _stream(path: str) -> int | None:
    """Return the descriptor that a path stands for: `/dev/stderr`, `/dev/fd/3` and the like."""
    if path in ("/dev/stdout", "/dev/stderr"):
        return 1 if path == "/dev/stdout" else 2
    directory, number = os.path.split(path)
    return int(number) if directory in ("/dev/fd", "/proc/self/fd") and number.isdecimal() else None
