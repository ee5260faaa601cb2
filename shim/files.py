"""Files in other people's directories: read, and replaced in one step.

The layers directory belongs to the user of the build, who ran other people's buildpacks in it and could lead root
anywhere. So root opens each directory of a path below the one before, follows no link, and acts from the first one on
that isn't root's as its owner. What is opened at the end is a regular file with no other name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from shim.errors import FileProblem, WriteRefused

LIMIT = 16 << 20  # bytes of a file that are read at most; a real analyzed.toml has up to 100,000
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@contextmanager
def _directory_of(path: str) -> Iterator[tuple[int, str]]:
    """Enter a file's directory, as root with the rights of its owner; yield a descriptor of it and the file's name.

    Raises OSError: a directory can't be opened, or nobody may act as its owner.
    """
    directory, name = os.path.split(path)
    is_root = not os.geteuid()
    descriptor = os.open("/" if is_root else directory or ".", _DIRECTORY)
    own_groups: tuple[int, list[int]] | None = None
    try:
        for part in filter(None, os.path.abspath(directory).split("/")) if is_root else ():
            below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            owner = os.fstat(below)
            if own_groups is None and owner.st_uid:
                own_groups = os.getegid(), os.getgroups()
                _act_as(owner.st_uid, owner.st_gid, [])
        yield descriptor, name
    finally:
        os.close(descriptor)
        if own_groups is not None:
            if os.geteuid():
                os.seteuid(0)
            _act_as(0, *own_groups)


def _act_as(user: int, group: int, groups: list[int]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:  # in many user namespaces; the phase keeps its groups there too
        pass
    os.setegid(group)
    if os.geteuid() != user:  # it may be denied even where it changes nothing
        os.seteuid(user)


def read(path: str) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes, and what `fstat` says of it.

    Raises FileProblem: it was not found, can't be read, or isn't such a file.
    """
    try:
        with _directory_of(path) as (directory, name), open(_open(name, os.O_RDONLY, directory), "rb") as file:
            about = os.fstat(file.fileno())
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        missing = FileProblem(f"{path} not found", "pass --layers or --analyzed, or run the preceding phase first")
        missing.missing = True
        raise missing from None
    except OSError as problem:
        raise FileProblem(f"{path} can't be read: {_reason(problem)}", "check its path, owner and mode") from None
    if len(data) > LIMIT:
        raise FileProblem(f"{path} has more than the {LIMIT} bytes that are read", "check what wrote it")
    return data, about


def replace(path: str, data: bytes, seen: os.stat_result | None = None) -> os.stat_result:
    """Put new content in a file's place, whole at every moment, and return what `fstat` says of the file then.

    The new file has the old one's owner, mode, ACL and other attributes. If it can't be given them, or can't take the
    old one's place (a bind mount, a directory that isn't writable), the same file is written instead. A new file is
    everybody's to read, as every phase's user may have to. Nothing is synced to the disk: the directory ends with its
    build.

    Raises WriteRefused: it couldn't be done, or the file isn't the one that was `seen`. What was there is still there.
    """
    try:
        with _directory_of(path) as (directory, name):
            try:
                old = _open(name, os.O_RDONLY, directory)
            except FileNotFoundError:
                return _put(directory, name, data, None)
            try:
                if seen is not None and identity(os.fstat(old)) != identity(seen):
                    raise WriteRefused(f"{path} was changed meanwhile", "let one build at a time use it")
                try:
                    return _put(directory, name, data, old)
                except OSError:
                    return _write_in_place(directory, name, data, old)
            finally:
                os.close(old)
    except OSError as problem:
        raise WriteRefused(f"{path} can't be written: {_reason(problem)}", "check its owner, mode and disk") from None


def remove(path: str) -> None:
    """Remove a file. Raises WriteRefused: it can't be removed."""
    try:
        with _directory_of(path) as (directory, name):
            os.unlink(name, dir_fd=directory)
    except OSError as problem:
        raise WriteRefused(f"{path} can't be removed: {_reason(problem)}", "check its owner and mode") from None


def _open(name: str, flags: int, directory: int) -> int:
    """Open a regular file that has no other name: a link of either kind may have been planted.

    Raises OSError: it can't be opened, or is something else.
    """
    descriptor = os.open(name, flags | _PLAIN, dir_fd=directory)
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    if stat.S_ISREG(about.st_mode):
        raise OSError(errno.EMLINK, "it has another name, a hard link")
    raise OSError(errno.EINVAL, "it is not a regular file")


def _put(directory: int, name: str, data: bytes, old: int | None) -> os.stat_result:
    """Write a file under another name, give it the attributes of the old one, and have it take the old one's place."""
    temporary = f".{name}.{os.urandom(8).hex()}"
    new = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PLAIN, 0o644, dir_fd=directory)
    try:
        _write_all(new, data)
        if old is not None:
            _copy_attributes(old, new)
        elif os.fstat(new).st_mode & 0o777 != 0o644:
            try:
                os.fchmod(new, 0o644)
            except OSError:  # a share that has modes of its own
                pass
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return os.fstat(new)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(new)


def _copy_attributes(old: int, new: int) -> None:
    """Give a file the owner, the mode without set-uid bits, the ACL and the other attributes of another one."""
    wanted, made = os.fstat(old), os.fstat(new)
    if (wanted.st_uid, wanted.st_gid) != (made.st_uid, made.st_gid):
        os.fchown(new, wanted.st_uid, wanted.st_gid)
    if wanted.st_mode & 0o777 != made.st_mode & 0o777:
        os.fchmod(new, wanted.st_mode & 0o777)
    attributes, given = _attributes(old), _attributes(new)
    for name in given.keys() - attributes.keys():  # a default ACL of the directory's
        os.removexattr(new, name)
    for name, value in attributes.items() - given.items():
        os.setxattr(new, name, value)


def _attributes(descriptor: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)}
    except OSError:  # a file system without them
        return {}


def _write_in_place(directory: int, name: str, data: bytes, old: int) -> os.stat_result:
    """Write new content into the same file.

    Line ends make the shorter of both as long as the other, and are cut off last: TOML and JSON don't see them, so that
    a reader finds the file whole at every moment. So a full disk is met before anything is lost.
    """
    about = os.fstat(old)
    before = os.pread(old, about.st_size, 0)
    descriptor = _open(name, os.O_WRONLY, directory)
    try:
        if not os.path.samestat(os.fstat(descriptor), about):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        try:
            os.lseek(descriptor, 0, os.SEEK_END)
            _write_all(descriptor, b"\n" * (len(data) - len(before)))
            os.lseek(descriptor, 0, os.SEEK_SET)
            _write_all(descriptor, data.ljust(len(before), b"\n"))
            os.ftruncate(descriptor, len(data))
            return os.fstat(descriptor)
        except OSError:
            os.pwrite(descriptor, before, 0)
            os.ftruncate(descriptor, len(before))
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write in one call, so that no moment in between is seen. Raises OSError: there is no room for all of it."""
    if os.write(descriptor, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def identity(about: os.stat_result) -> tuple[int, ...]:
    """Return what changes if a file is replaced or written."""
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _reason(problem: OSError) -> str:
    return "it is a symbolic link" if problem.errno == errno.ELOOP else problem.strerror or type(problem).__name__
