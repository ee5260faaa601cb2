"""With whose rights files below the layers directory are touched.

That directory belongs to the user that the phases drop to, who ran other people's buildpacks in it. A shim that is
root and follows a path there could be led anywhere. So root does with the user's rights what the user may do, and by
itself only what lies where nobody but root could have put anything. A directory is opened once, and all that is done
in it is done by that descriptor; the daemon's connection, which needs root's rights, is made elsewhere.
"""

from __future__ import annotations

import errno
import os

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    _T = TypeVar("_T")

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Rights(Record):
    """The user that a phase drops to: `-uid` and `-gid`, else `CNB_USER_ID` and `CNB_GROUP_ID`."""

    uid: int = 0
    gid: int = 0

    def act(self, path: str, do: Callable[[int, str, Rights | None], _T]) -> _T:
        """Do something to a file, with the rights that are right for its directory, and return what that returns.

        Args:
            path: the file; its directory may be given by symbolic links.
            do: gets a descriptor of the directory, the file's name in it, and the user with whose rights it acts, or
                None if it acts as this process is. It may be called twice, if the user's rights were not enough.

        Raises:
            OSError: the directory can't be opened, or what `do` raises. Permission denied also means that only root
                may do it, where somebody else could have planted something.

        """
        directory, name = os.path.split(path)
        if os.geteuid() or not self.uid:
            return _in(os.open(directory or ".", DIRECTORY), name, None, do)
        try:
            with _As(self):
                return _in(os.open(directory or ".", DIRECTORY), name, self, do)
        except PermissionError as problem:
            try:
                from shim.layers import trusted

                descriptor = trusted.open_directory(directory)
            except OSError:
                raise problem from None
            return _in(descriptor, name, None, do)


def _in(descriptor: int, name: str, user: Rights | None, do: Callable[[int, str, Rights | None], _T]) -> _T:
    try:
        return do(descriptor, name, user)
    finally:
        os.close(descriptor)


class _As:
    """While this is entered, the process has another user's rights, in all of its threads."""

    def __init__(self, user: Rights) -> None:
        self._user = user
        self._group = os.getegid()
        self._groups: list[int] | None = None

    def __enter__(self) -> None:
        """Take on the user's rights.

        Raises:
            PermissionError: that can't be done, as without CAP_SETUID; all is as it was.

        """
        groups = os.getgroups()
        try:
            try:
                os.setgroups([])
                self._groups = groups
            except OSError:  # denied in many user namespaces; the phase keeps its groups there too
                pass
            os.setegid(self._user.gid)
            os.seteuid(self._user.uid)
        except OSError as problem:  # also EINVAL, for an ID that a user namespace doesn't have
            self._back()
            raise PermissionError(errno.EPERM, f"acting as user {self._user.uid}: {problem.strerror}") from None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Take root's rights back, and the groups that it had."""
        os.seteuid(0)
        self._back()

    def _back(self) -> None:
        if os.getegid() != self._group:
            os.setegid(self._group)
        if self._groups is not None:
            os.setgroups(self._groups)


AS_IT_IS = Rights()
"""No other user's."""
