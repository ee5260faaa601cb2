"""Reading and replacing small files that belong to somebody else.

The layers directory belongs to the CNB user, who ran other people's buildpacks in it. So nothing
is opened through a link, nothing but a regular file is read, and a new file is never an old one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from shim.errors import BrokenFile, MissingFile
from shim.layers import plain
from shim.layers.rights import AS_IT_IS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.layers.rights import Rights

BOM = b"\xef\xbb\xbf"
"""The byte order mark, which an editor may have put first."""
_LEFT = ".analyzed-shim"
"""How the names of files end that are on their way to another's place."""
_COPY = "analyzed-shim-group-"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def read(path: str, limit: int | None = None, rights: Rights = AS_IT_IS) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes, and what it is.

    Args:
        path: the file.
        limit: bytes that it may have.
        rights: whose; where they aren't our own, the file must have no other name and belong to that user or root.

    Raises:
        MissingFile: it isn't there.
        BrokenFile: it can't be read, or isn't such a file.

    """
    try:
        with rights.within(os.path.dirname(path)) as user:
            descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise MissingFile(f"there is no {path}", "give its place, or let the phase before write it") from None
    except OSError as problem:
        if os.path.islink(path):
            raise BrokenFile(f"{path} is a symbolic link", "put the file itself there") from None
        raise BrokenFile(f"{path} can't be read: {problem.strerror}", "look at its owner and mode") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise BrokenFile(f"{path} isn't a regular file", "put the file itself there")
    with open(descriptor, "rb") as file:
        if user is not None and (about.st_nlink > 1 or about.st_uid not in (0, user.uid)):
            raise BrokenFile(
                f"{path} has another name or another owner than user {user.uid}", "put a file of its own there"
            )
        if limit is not None and about.st_size > limit:
            raise BrokenFile(f"{path} is {about.st_size} bytes long, more than it can be", "remove it")
        try:
            return file.read(), about
        except OSError as problem:
            raise BrokenFile(f"{path} can't be read: {problem.strerror}", "look at the disk") from None


def text_of(path: str, data: bytes) -> str:
    """Decode TOML, which is UTF-8; a byte order mark is left out, as the lifecycle's parser does.

    Raises:
        BrokenFile: it isn't UTF-8.

    """
    try:
        return data.removeprefix(BOM).decode()
    except UnicodeDecodeError as problem:
        raise BrokenFile(f"{path} isn't UTF-8 at byte {problem.start}", "write it as UTF-8") from None


def parse(path: str, data: bytes) -> Mapping[str, object]:
    """Return a TOML file's top-level values; the fast way where the file is plain and flat.

    Raises:
        BrokenFile: it isn't TOML.

    """
    text = text_of(path, data)
    tables = plain.tables(text)
    if tables is not None and list(tables) == [""] and None not in tables[""].values():
        return tables[""]
    return parse_fully(path, text)


def parse_fully(path: str, text: str) -> dict[str, object]:
    """Return a TOML text's values as `tomllib` reads them.

    Raises:
        BrokenFile: it isn't TOML.

    """
    import tomllib  # 1.3 bare interpreter starts, and most files don't need it

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise BrokenFile(f"{path} isn't TOML: {problem}", "mend it, or let the phase before write it anew") from None


def replace(path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None, rights: Rights = AS_IT_IS) -> None:
    """Put new content in a file's place in one step, so that a reader finds the old or the new one, whole.

    Args:
        path: the file; what is there is replaced, not followed or written to.
        data: the new content.
        mode: its permission bits.
        owner: user and group ID that it must have; by default whoever writes it.
        rights: whose.

    Raises:
        OSError: it couldn't be done; what was there before is still there, and nothing else.

    """
    with rights.within(os.path.dirname(path)):
        _replace(path, data, mode, owner)


def _replace(path: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    directory, name = os.path.split(path)
    _sweep(directory)
    temporary = os.path.join(directory, f".{name}.{os.urandom(8).hex()}{_LEFT}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            _lock(descriptor)
            file.write(data)
            file.flush()
            if owner is not None and owner != _owner(os.fstat(descriptor)):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise


def remove(path: str, rights: Rights = AS_IT_IS) -> None:
    """Remove a file, with the given rights.

    Raises:
        OSError: it couldn't be removed.

    """
    with rights.within(os.path.dirname(path)):
        os.unlink(path)


def _sweep(directory: str) -> None:
    """Remove what killed processes left in a directory."""
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if name.startswith(".") and name.endswith(_LEFT) and _is_left(path):
            try:
                os.unlink(path)
            except OSError:  # what can't be swept harms nobody
                pass


def _is_left(path: str, owner: int | None = None) -> bool:
    """Say whether whoever made a file or directory, this user, is gone: who lives holds a lock on it."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        return owner in (None, os.fstat(descriptor).st_uid) and _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file or directory until it is closed, or the process is gone, and say whether it could be."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system has no locks, so nobody sweeps there
        return False
    return True


class Copy:
    """A file that every user can read, in a directory of its own."""

    def __init__(self, name: str, content: bytes) -> None:
        """Write it, and remove what killed processes left of theirs.

        Raises:
            OSError: it couldn't be written; nothing of it is left.

        """
        import shutil
        import tempfile

        place = tempfile.gettempdir()
        for left in os.listdir(place):
            path = os.path.join(place, left)
            if left.startswith(_COPY) and _is_left(path, os.geteuid()):
                shutil.rmtree(path, ignore_errors=True)
        self._directory = tempfile.mkdtemp(prefix=_COPY, dir=place)
        self._descriptor = os.open(self._directory, _READ)
        _lock(self._descriptor)
        self.path = os.path.join(self._directory, name)
        try:
            os.fchmod(self._descriptor, 0o755)
            with open(self.path, "xb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove it and its directory, as far as they are there."""
        for remove, target in ((os.unlink, self.path), (os.rmdir, self._directory)):
            try:
                remove(target)
            except OSError:
                pass
        os.close(self._descriptor)


def overwrite(path: str, old: bytes, new: bytes, rights: Rights = AS_IT_IS) -> None:
    """Write new content into the same file, where it can't be replaced: it is a mount of its own, or the disk is full.

    Line ends make the shorter of both as long as the other; TOML doesn't see them. So first the file gets its room,
    which is the step that a full disk refuses. Then one call writes the content into it, and a reader before or after
    finds the old or the new file, whole. What is too much is cut off last.

    Args:
        path: the file.
        old: its content, put back where the new one can't be written.
        new: its new content.
        rights: whose.

    Raises:
        OSError: it couldn't be done; the old content is there. Also where the file has another
            name, whose content would change with it.

    """
    with rights.within(os.path.dirname(path)):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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


def _owner(about: os.stat_result) -> tuple[int, int]:
    return about.st_uid, about.st_gid
