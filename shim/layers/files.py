"""Reading and replacing small files that belong to somebody else.

The layers directory belongs to the CNB user, who ran other people's buildpacks in it. So nothing is opened through a
link, nothing but a regular file is read, and no more of it than can be meant; a new file is never an old one. All is
done below a descriptor of the directory (see `rights`).

"Whole at every moment" is meant for whoever reads the file while the shim runs or is killed. It does not mean a power
cut: nothing is synced to the disk, as the layers directory ends with its build.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from shim.errors import BrokenFile, MissingFile
from shim.layers.rights import AS_IT_IS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.layers.rights import Rights

LIMIT = 16 << 20
"""Bytes of a file that are read at most; a real analyzed.toml has up to 100,000."""
_LEFT = ".analyzed-shim"
"""How the names of files end that are about to take another's place."""
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


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
        descriptor = os.open(name, _READ, dir_fd=directory)
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
        descriptor = os.open(name, _READ, dir_fd=directory)
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
